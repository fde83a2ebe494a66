//! Regular expressions as users write them: which are RE2's, and what they cost there.
//!
//! The data plane compiles RE2, byte by byte, and refuses everything that comes with one bad expression. The parser here
//! is that of the `regex` crate, which is of the same family; a walk over its tree then allows only what RE2 reads the
//! same way. No automaton is built, because an expression is checked for every matcher of every table.

use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassSet, ClassSetItem, ClassUnicodeKind, Flag, Flags, FlagsItemKind, GroupKind,
    HexLiteralKind, Literal, LiteralKind, RepetitionKind, RepetitionOp, RepetitionRange,
};

/// Longest expression that is accepted, in bytes.
pub const MAX_LENGTH: usize = 4096;

/// Largest program that is accepted, in RE2's instructions of 16 bytes, as the check bounds it from above.
///
/// RE2 itself compiles more than 120,000. The proxy refuses more than its runtime value
/// `re2.max_program_size.error_level`, which is 100 where nobody sets it: less than a UUID takes. So the bootstrap sets
/// [`PROXY_LEVEL`], and this limit decides.
pub const MAX_PROGRAM: usize = 10_000;

/// What `re2.max_program_size.error_level` is set to: ten times [`MAX_PROGRAM`], so that it never decides.
pub const PROXY_LEVEL: usize = 100_000;

/// Most repetitions of one part, with those of the groups around it. RE2's own limit.
const MAX_REPETITION: usize = 1000;

/// Names of `\p{…}` that both parsers know, spelled as RE2 wants them. Scripts of late Unicode versions are left out: it
/// depends on the build of RE2 whether it knows them.
const PROPERTIES: &[&str] = &[
    "C",
    "Cc",
    "Cf",
    "Co",
    "L",
    "Ll",
    "Lm",
    "Lo",
    "Lt",
    "Lu",
    "M",
    "Mc",
    "Me",
    "Mn",
    "N",
    "Nd",
    "Nl",
    "No",
    "P",
    "Pc",
    "Pd",
    "Pe",
    "Pf",
    "Pi",
    "Po",
    "Ps",
    "S",
    "Sc",
    "Sk",
    "Sm",
    "So",
    "Z",
    "Zl",
    "Zp",
    "Zs",
    "Any",
    "Arabic",
    "Armenian",
    "Bengali",
    "Bopomofo",
    "Braille",
    "Cherokee",
    "Common",
    "Coptic",
    "Cyrillic",
    "Devanagari",
    "Ethiopic",
    "Georgian",
    "Greek",
    "Gujarati",
    "Gurmukhi",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Inherited",
    "Kannada",
    "Katakana",
    "Khmer",
    "Lao",
    "Latin",
    "Malayalam",
    "Mongolian",
    "Myanmar",
    "Oriya",
    "Sinhala",
    "Syriac",
    "Tamil",
    "Telugu",
    "Thaana",
    "Thai",
    "Tibetan",
];

/// Checks that RE2 takes the expression, and counts its groups.
///
/// # Errors
/// One sentence for the author.
pub fn check(expression: &str) -> Result<usize, String> {
    let tree = parse(expression)?;
    let mut walk = Walk { expression, groups: 0, ignores_case: false };
    let cost = walk.cost(&tree, 1)?;
    if cost > MAX_PROGRAM {
        return Err("the expression compiles to too large a program; lower its repetition counts".to_owned());
    }
    Ok(walk.groups)
}

fn parse(expression: &str) -> Result<Ast, String> {
    if expression.is_empty() {
        return Err("the expression is empty; write `.*` to match anything".to_owned());
    }
    if expression.len() > MAX_LENGTH {
        return Err(format!("the expression is longer than {MAX_LENGTH} bytes; shorten it or split the route"));
    }
    ast::parse::Parser::new()
        .parse(expression)
        .map_err(|error| format!("`{expression}` is no RE2 expression: {}", error.kind()))
}

/// One alternative of an expression that matches a whole text.
#[derive(Debug)]
pub(super) struct Alternative<'a> {
    /// Flags such as `(?i)` at the head.
    pub(super) flags: String,
    /// What follows, without an anchor at the head.
    pub(super) rest: &'a str,
}

/// The alternatives of an expression: what stands between the `|` outside its groups and classes.
pub(super) fn alternatives(expression: &str) -> Result<Vec<Alternative<'_>>, String> {
    let tree = parse(expression)?;
    let branches = match &tree {
        Ast::Alternation(alternation) => alternation.asts.as_slice(),
        only => std::slice::from_ref(only),
    };
    let alternative = |branch: &Ast| {
        let nodes = match branch {
            Ast::Concat(concat) => concat.asts.as_slice(),
            only => std::slice::from_ref(only),
        };
        let mut flags = String::new();
        let mut start = branch.span().start.offset;
        for node in nodes {
            match node {
                Ast::Flags(set) => flags.push_str(&expression[set.span.start.offset..set.span.end.offset]),
                Ast::Assertion(assertion)
                    if matches!(assertion.kind, AssertionKind::StartLine | AssertionKind::StartText) => {}
                _ => break,
            }
            start = node.span().end.offset;
        }
        Alternative { flags, rest: &expression[start..branch.span().end.offset] }
    };
    Ok(branches.iter().map(alternative).collect())
}

/// The walk over an expression's tree, which is at most 250 groups deep.
struct Walk<'a> {
    expression: &'a str,
    groups: usize,
    /// Whether any part ignores case.
    ignores_case: bool,
}

impl Walk<'_> {
    /// At least the number of instructions of a part, which stands in groups that are repeated that many times.
    fn cost(&mut self, tree: &Ast, repeated: usize) -> Result<usize, String> {
        Ok(match tree {
            Ast::Empty(_) => 1,
            Ast::Flags(set) => {
                self.flags(&set.flags)?;
                1
            }
            Ast::Literal(literal) => self.literal(literal)?,
            Ast::Dot(_) => 2,
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => 1,
                _ => return Err("RE2 has no `\\<`, `\\>` and `\\b{…}`; use `\\b`".to_owned()),
            },
            Ast::ClassUnicode(class) => Self::property(&class.kind)?,
            Ast::ClassPerl(_) => 6,
            Ast::ClassBracketed(class) => {
                let ClassSet::Item(item) = &class.kind else {
                    return Err("RE2 has no `&&`, `--` and `~~` in classes; write `-` last, and others once".to_owned());
                };
                let ranges = self.class_item(item)? + 1;
                // Letters of the other case are ranges of their own, before and behind.
                if self.ignores_case { ranges * 3 } else { ranges }
            }
            Ast::Repetition(repetition) => {
                if matches!(*repetition.ast, Ast::Repetition(_)) {
                    return Err(format!(
                        "RE2 does not repeat a repetition, as `{}` does; put the inner one into `(?:…)`",
                        self.text(&repetition.span)
                    ));
                }
                let times = self.times(&repetition.op)?;
                let repeated = repeated * times.max(1);
                if repeated > MAX_REPETITION {
                    return Err(format!(
                        "RE2 repeats nothing more than {MAX_REPETITION} times, repetitions within repetitions included; the expression is too large"
                    ));
                }
                self.cost(&repetition.ast, repeated)?.saturating_add(1).saturating_mul(times.max(1)).saturating_add(1)
            }
            Ast::Group(group) => {
                let own = match &group.kind {
                    GroupKind::CaptureIndex(_) => 2,
                    GroupKind::CaptureName { name, .. } => {
                        if !name.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                            return Err(format!(
                                "`{}` is no name of a group in RE2; use letters, digits and `_`",
                                name.name
                            ));
                        }
                        2
                    }
                    GroupKind::NonCapturing(flags) => {
                        self.flags(flags)?;
                        0
                    }
                };
                self.groups += own / 2;
                self.cost(&group.ast, repeated)?.saturating_add(own)
            }
            Ast::Alternation(alternation) => {
                self.sum(&alternation.asts, repeated)?.saturating_add(alternation.asts.len())
            }
            Ast::Concat(concat) => self.sum(&concat.asts, repeated)?,
        })
    }

    fn sum(&mut self, parts: &[Ast], repeated: usize) -> Result<usize, String> {
        parts.iter().try_fold(0_usize, |sum, part| Ok(sum.saturating_add(self.cost(part, repeated)?)))
    }

    fn text(&self, span: &ast::Span) -> &str {
        &self.expression[span.start.offset..span.end.offset]
    }

    fn flags(&mut self, flags: &Flags) -> Result<(), String> {
        for item in &flags.items {
            match item.kind {
                FlagsItemKind::Flag(Flag::CaseInsensitive) => self.ignores_case = true,
                FlagsItemKind::Flag(Flag::CRLF | Flag::IgnoreWhitespace | Flag::Unicode) => {
                    return Err("RE2 has no flags `x`, `R` and `u`".to_owned());
                }
                FlagsItemKind::Flag(_) | FlagsItemKind::Negation => {}
            }
        }
        Ok(())
    }

    /// RE2 is asked to read bytes, so a character is as many literals, and none is above `\xff`.
    fn literal(&self, literal: &Literal) -> Result<usize, String> {
        match literal.kind {
            LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
            | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
                Err("RE2 has no `\\u`; write the character itself or `\\x{…}`".to_owned())
            }
            LiteralKind::HexFixed(HexLiteralKind::X) | LiteralKind::HexBrace(HexLiteralKind::X)
                if u32::from(literal.c) > 0xff =>
            {
                Err(format!("`{}` is no byte; write the character itself", self.text(&literal.span)))
            }
            _ => Ok(literal.c.len_utf8()),
        }
    }

    /// At least the number of ranges.
    fn class_item(&self, item: &ClassSetItem) -> Result<usize, String> {
        Ok(match item {
            ClassSetItem::Empty(_) => 0,
            ClassSetItem::Literal(literal) => self.literal(literal)?,
            ClassSetItem::Range(range) => {
                let is_wide = |end: &Literal| end.kind == LiteralKind::Verbatim && !end.c.is_ascii();
                if is_wide(&range.start) || is_wide(&range.end) {
                    return Err(format!(
                        "`{}` is no range of bytes; list the characters as alternatives",
                        self.text(&range.span)
                    ));
                }
                self.literal(&range.start)?.max(self.literal(&range.end)?)
            }
            ClassSetItem::Ascii(_) | ClassSetItem::Perl(_) => 6,
            ClassSetItem::Unicode(class) => Self::property(&class.kind)?,
            ClassSetItem::Bracketed(_) => {
                return Err("RE2 has no classes within classes; escape the inner `[`, or correct the name in `[:…:]`"
                    .to_owned());
            }
            ClassSetItem::Union(union) => {
                union.items.iter().try_fold(0, |sum, item| Ok::<_, String>(sum + self.class_item(item)?))?
            }
        })
    }

    /// Only what lies below `\xff` counts, which is at most 17 ranges in any category or script.
    fn property(kind: &ClassUnicodeKind) -> Result<usize, String> {
        let mut letter = [0; 4];
        let name = match kind {
            ClassUnicodeKind::OneLetter(character) => &*character.encode_utf8(&mut letter),
            ClassUnicodeKind::Named(name) => name.as_str(),
            ClassUnicodeKind::NamedValue { .. } => "=",
        };
        if PROPERTIES.contains(&name) {
            Ok(20)
        } else {
            Err("RE2 knows `\\p` only with its short names, spelled like `\\pL`, `\\p{Lu}` or `\\p{Greek}`".to_owned())
        }
    }

    /// How often a part is copied. What does not read as a count in RE2 is text there.
    fn times(&self, op: &RepetitionOp) -> Result<usize, String> {
        let RepetitionKind::Range(range) = &op.kind else { return Ok(1) };
        let text = self.text(&op.span);
        let inner = text.trim_end_matches('?').trim_start_matches('{').trim_end_matches('}');
        let is_count = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let (first, second) = inner.split_once(',').unwrap_or((inner, ""));
        if first.is_empty() || !is_count(first) || !is_count(second) {
            return Err(format!("RE2 does not read `{text}` as a repetition; write `{{2}}`, `{{2,}}` or `{{2,3}}`"));
        }
        let (RepetitionRange::Exactly(times) | RepetitionRange::AtLeast(times) | RepetitionRange::Bounded(_, times)) =
            range;
        // More than the limit is more than the limit, however much.
        Ok(usize::try_from(*times).unwrap_or(usize::MAX).min(MAX_REPETITION + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was refused by Envoy 1.40, or is read differently there.
    #[test]
    fn what_re2_refuses_is_refused_with_a_reason() {
        for (expression, part) in [
            ("(?=a)b", "look-around"),
            ("(a)\\1", "backreferences"),
            ("a[", "unclosed"),
            ("(?x) a", "flags"),
            ("(?-u)a", "flags"),
            ("(?R:a)", "flags"),
            ("[a[b]]", "classes within classes"),
            ("[[:loower:]]", "classes within classes"),
            ("[a&&b]", "in classes"),
            ("[a--b]", "in classes"),
            ("[a~~b]", "in classes"),
            ("\\<a", "`\\b`"),
            ("\\b{start}a", "`\\b`"),
            ("\\u0041", "`\\u`"),
            ("[\\u{41}]", "`\\u`"),
            ("\\x{100}", "byte"),
            ("[a-\\x{10FFFF}]", "byte"),
            ("[\\xE9-\u{fc}]", "range of bytes"),
            ("", "empty"),
            (".*+", "`.*+`"),
            ("a++", "`a++`"),
            ("a**", "repeat a repetition"),
            ("a{2}{3}", "repeat a repetition"),
            ("a{1,}{1}", "repeat a repetition"),
            ("a{1001}", "1000 times"),
            ("a{4000000000}", "1000 times"),
            ("(a{50}){50}", "1000 times"),
            ("(?:a{50,}){21}", "1000 times"),
            ("(a{1000}){1000}", "large"),
            ("a{,5}", "decimal"),
            ("a{ 2 }", "`{ 2 }`"),
            ("a{02}", "`{02}`"),
            ("\\p{Letter}", "short names"),
            ("\\p{greek}", "short names"),
            ("\\p{Script=Greek}", "short names"),
            ("[\\p{Alphabetic}]", "short names"),
            ("\\pX", "short names"),
            ("(?P<a.b>x)", "name of a group"),
            ("(?P<a[0]>x)", "name of a group"),
            ("(?P<\u{e9}>x)", "name of a group"),
            (&"a".repeat(MAX_LENGTH + 1), "longer"),
            ("(?:[0-9a-z_]{40}/){25}x{1000}(?:abcdefghij){900}", "large"),
        ] {
            let error = check(expression).expect_err(expression);
            assert!(error.contains(part), "{expression}: {error}");
        }
    }

    #[test]
    fn an_expression_that_is_balanced_only_inside_a_group_is_refused() {
        for expression in ["a)(?:b", ")(", "x)|(?:.*", "a)|(b"] {
            assert!(check(expression).is_err_and(|error| error.contains("unopened group")), "{expression}");
        }
    }

    #[test]
    fn ordinary_expressions_pass() {
        for expression in [
            "/v[0-9]+/.*",
            "[]a]",
            "[[:alpha:]]+",
            "[[:^alpha:]-]",
            "(?i)abc",
            "(?P<x_1>a)",
            "(?<x>a)",
            "a\\[b",
            "[^]]",
            "[a-]",
            "[\\w.-]+",
            "a{2}?",
            "a{2,}",
            "a{0}",
            "(?:a{1000}){1}",
            "(a{50}){20}",
            "(a*)*",
            "^*",
            "()*",
            "(|a)*",
            "(?i-s)a",
            "(?s-i:a)",
            "(?U)a*",
            "(?m)^a$",
            "\\A\\B\\z",
            "\\pL\\p{Lu}\\PN",
            "[\\p{Greek}]",
            "\\x7F\\x{0ff}",
            "\\a\\f\\t\\n\\r\\v",
            "\u{e9}+",
            "a|",
            "/v4/advisory/[0-9a-z-]{36}/clone",
        ] {
            assert!(check(expression).is_ok(), "{expression}: {:?}", check(expression));
            assert!(regex::Regex::new(expression).is_ok(), "{expression}");
        }
        for name in PROPERTIES {
            assert!(regex::Regex::new(&format!("\\p{{{name}}}")).is_ok(), "{name}");
        }
        assert_eq!(check("^/(a)/(?P<x>b)/(?:c)$"), Ok(2));
    }

    /// Sizes as Envoy 1.40 reported them; about five instructions are around every program.
    #[test]
    fn the_size_of_a_program_is_never_taken_too_small() {
        for (expression, measured) in [
            ("/a/b/c", 10),
            (".", 6),
            ("a*", 5),
            ("a+", 6),
            ("[0-9a-z-]", 7),
            ("[^a-z0-9_/]", 8),
            ("\\W", 9),
            ("\\S", 8),
            ("\\PL", 12),
            ("\\pS", 19),
            ("\\pP", 19),
            ("[^\\pS\\pP]", 17),
            ("(?i)[!-Z]", 6),
            ("(?i)\\pL", 11),
            ("\u{e9}\u{e9}", 8),
            ("abc|abd|xyz", 10),
            ("a{2,5}", 12),
            ("a{0,5}", 14),
            ("(?:a?){5}", 14),
            ("(?:ab|cd){2,5}", 27),
            ("^/v4/advisory/[0-9a-z-]{36}/clone$", 118),
            ("[^a]{1000}", 2004),
            (".{1000}", 2004),
            ("(.*){20}", 84),
            ("(?:|a){3}", 10),
            ("(a|b|c|abc){3,}", 23),
            ("(?:ab?c*){7,9}", 43),
            ("(){9}", 22),
            ("(?i)(?:a|[^k]|ab){9}", 49),
            ("(?:(?:a{2}){3}){4}", 28),
        ] {
            let tree = parse(expression).expect(expression);
            let cost = Walk { expression, groups: 0, ignores_case: false }.cost(&tree, 1).expect(expression);
            assert!(cost + 5 >= measured, "{expression}: {cost} for {measured}");
        }
    }
}
