//! Boolean expressions over the names of methods: `&&`, `||`, `!` and parentheses, in that precedence from loose to tight:
//! `||`, `&&`, `!`.

use crate::ir::policy::ext_auth::AuthRule;
use crate::model::Name;

/// Longest expression that is read, in bytes.
const MAX_LENGTH: usize = 4096;

/// Deepest nesting of parentheses and negations.
const MAX_DEPTH: usize = 32;

/// Reads an expression; nested `&&` and `||` of one kind are one list.
///
/// # Errors
/// One sentence for the author: a name that no method has, or what is missing.
pub(super) fn parse(text: &str, names: &[&Name]) -> Result<AuthRule, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("the expression is longer than {MAX_LENGTH} bytes; shorten it"));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, names, depth: 0 };
    let rule = parser.any()?;
    match parser.tokens.get(parser.next) {
        None => Ok(rule),
        Some(token) => Err(format!("the expression goes on with {} where it should end", shown(token))),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    And,
    Or,
    Not,
    Open,
    Close,
    Name(&'a str),
}

fn shown(token: &Token<'_>) -> String {
    match token {
        Token::And => "`&&`".to_owned(),
        Token::Or => "`||`".to_owned(),
        Token::Not => "`!`".to_owned(),
        Token::Open => "`(`".to_owned(),
        Token::Close => "`)`".to_owned(),
        Token::Name(name) => super::quoted(name),
    }
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '!' => (Token::Not, 1),
            '&' if rest.starts_with("&&") => (Token::And, 2),
            '|' if rest.starts_with("||") => (Token::Or, 2),
            '&' | '|' => return Err("the expression has a single `&` or `|`; write `&&` and `||`".to_owned()),
            _ => {
                let ends = |c: char| c.is_whitespace() || "()!&|".contains(c);
                let length = rest.find(ends).unwrap_or(rest.len());
                (Token::Name(&rest[..length]), length)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    names: &'a [&'a Name],
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, wanted: &Token<'_>) -> bool {
        let is_there = self.tokens.get(self.next) == Some(wanted);
        self.next += usize::from(is_there);
        is_there
    }

    fn any(&mut self) -> Result<AuthRule, String> {
        let mut rules = vec![self.all()?];
        while self.take(&Token::Or) {
            rules.push(self.all()?);
        }
        let flat = rules.into_iter().flat_map(|rule| match rule {
            AuthRule::Any(inner) => inner,
            other => vec![other],
        });
        Ok(joined(flat.collect(), AuthRule::Any))
    }

    fn all(&mut self) -> Result<AuthRule, String> {
        let mut rules = vec![self.one()?];
        while self.take(&Token::And) {
            rules.push(self.one()?);
        }
        let flat = rules.into_iter().flat_map(|rule| match rule {
            AuthRule::All(inner) => inner,
            other => vec![other],
        });
        Ok(joined(flat.collect(), AuthRule::All))
    }

    fn one(&mut self) -> Result<AuthRule, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression is nested deeper than {MAX_DEPTH}; simplify it"));
        }
        let Some(token) = self.tokens.get(self.next).cloned() else {
            return Err("the expression ends where a name is missing".to_owned());
        };
        self.next += 1;
        let rule = match token {
            Token::Name(name) => match self.names.iter().position(|known| known.as_str() == name) {
                Some(index) => AuthRule::Method(index),
                None => {
                    let known: Vec<String> = self.names.iter().map(|name| super::quoted(name)).collect();
                    return Err(format!("no method is called {}: write {}", super::quoted(name), known.join(", ")));
                }
            },
            // Twice is not at all.
            Token::Not => match self.one()? {
                AuthRule::Not(inner) => *inner,
                other => AuthRule::Not(Box::new(other)),
            },
            Token::Open => {
                let rule = self.any()?;
                if !self.take(&Token::Close) {
                    return Err("the expression has a `(` without its `)`".to_owned());
                }
                rule
            }
            other => return Err(format!("the expression has {} where a name is missing", shown(&other))),
        };
        self.depth -= 1;
        Ok(rule)
    }
}

/// Rules joined; one alone, or the same several times, is itself.
fn joined(rules: Vec<AuthRule>, join: impl FnOnce(Vec<AuthRule>) -> AuthRule) -> AuthRule {
    let mut distinct: Vec<AuthRule> = Vec::new();
    for rule in rules {
        if !distinct.contains(&rule) {
            distinct.push(rule);
        }
    }
    match distinct.pop() {
        Some(only) if distinct.is_empty() => only,
        Some(last) => {
            distinct.push(last);
            join(distinct)
        }
        None => join(distinct),
    }
}
