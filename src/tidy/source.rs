//! The repository as text: which files there are, and which part of a Rust file is code, comment or test.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// A text file of the repository.
pub(super) struct Source {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments and the insides of literals blanked out; as long as the text. Of Rust files only.
    pub(super) code: String,
    /// The comments alone, likewise.
    pub(super) comments: String,
    /// Byte ranges that only tests are made of.
    test_parts: Vec<Range<usize>>,
}

impl Source {
    pub(super) fn new(path: String, text: String) -> Self {
        let rust = path.ends_with(".rs");
        let (code, comments) = if rust { split(&text) } else { (String::new(), String::new()) };
        let test_parts = if !rust {
            Vec::new()
        } else if is_test_file(&path) {
            std::iter::once(0..text.len()).collect()
        } else {
            test_parts(&code)
        };
        Self { path, text, code, comments, test_parts }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The module directly below the crate, for files of the library.
    pub(super) fn module(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?;
        let name = path.split('/').next()?;
        let name = name.strip_suffix(".rs").unwrap_or(name);
        (self.is_rust() && !matches!(name, "lib" | "main")).then_some(name)
    }

    pub(super) fn is_test_part(&self, at: usize) -> bool {
        self.test_parts.iter().any(|range| range.contains(&at))
    }

    /// `path:line` of a place.
    pub(super) fn place(&self, at: usize) -> String {
        format!("{}:{}", self.path, 1 + self.text[..at].matches('\n').count())
    }

    /// Places of a pattern in code that is not only for tests.
    pub(super) fn in_product_code<'a>(&'a self, pattern: &'a Regex) -> impl Iterator<Item = (usize, &'a str)> {
        pattern
            .find_iter(&self.code)
            .filter(|found| !self.is_test_part(found.start()))
            .map(|found| (found.start(), found.as_str()))
    }
}

/// Whether a whole file is made of tests.
pub(super) fn is_test_file(path: &str) -> bool {
    path.starts_with("e2e/")
        || path.starts_with("src/testing/")
        || path == "src/testing.rs"
        || path == "src/tidy.rs"
        || path.starts_with("src/tidy/")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
}

/// Every text file that belongs to the repository, in path order.
pub(super) static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(root, "", &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(root.join(&path)).ok()?;
            Some(Source::new(path, text))
        })
        .collect()
});

fn walk(directory: &Path, prefix: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("the repository can be read") {
        let entry = entry.expect("the repository can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && !matches!(name.as_str(), ".github" | ".cargo" | ".gitignore");
        let made = matches!(name.as_str(), "target" | "node_modules" | "venv" | "__pycache__" | "Cargo.lock");
        let kind = entry.file_type().expect("the repository can be read");
        if hidden || made || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), &format!("{prefix}{name}/"), paths);
        } else {
            paths.push(format!("{prefix}{name}"));
        }
    }
}

pub(super) fn rust_sources(directory: &str) -> impl Iterator<Item = &'static Source> {
    SOURCES.iter().filter(move |source| source.is_rust() && source.path.starts_with(directory))
}

pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is written correctly")
}

/// Rust text as code and as comments: each as long as the text, with everything else blank.
///
/// The quotes of a literal stay in the code, its inside does not.
fn split(text: &str) -> (String, String) {
    #[derive(Clone, Copy)]
    enum Part {
        Code,
        Comment,
        Inside,
    }
    let bytes = text.as_bytes();
    let mut parts = Vec::with_capacity(bytes.len());
    let at_identifier = |at: usize| at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    while parts.len() < bytes.len() {
        let at = parts.len();
        let rest = &text[at..];
        let (length, part, quotes) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), Part::Comment, 0)
        } else if rest.starts_with("/*") {
            (block_comment(rest), Part::Comment, 0)
        } else if let Some(length) = raw_string(rest).filter(|_| !at_identifier(at)) {
            (length, Part::Inside, 1)
        } else if rest.starts_with('"') {
            (quoted(rest, b'"'), Part::Inside, 1)
        } else if rest.starts_with('\'') && is_char_literal(rest) {
            (quoted(rest, b'\''), Part::Inside, 1)
        } else {
            (rest.chars().next().map_or(1, char::len_utf8), Part::Code, 0)
        };
        for i in 0..length {
            let edge = i < quotes || i >= length - quotes;
            parts.push(if quotes > 0 && edge { Part::Code } else { part });
        }
    }
    let keep = |wanted: fn(Part) -> bool| -> String {
        let mut at = 0;
        text.chars()
            .map(|c| {
                let part = parts[at];
                at += c.len_utf8();
                if c == '\n' || wanted(part) { c.to_string() } else { " ".repeat(c.len_utf8()) }
            })
            .collect()
    };
    (keep(|part| matches!(part, Part::Code)), keep(|part| matches!(part, Part::Comment)))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a raw string that starts here, `r"…"` or `br#"…"#`.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = if rest.starts_with("br") { 2 } else { usize::from(rest.starts_with('r')) };
    let hashes = rest.get(prefix..)?.bytes().take_while(|b| *b == b'#').count();
    let start = prefix + hashes;
    if prefix == 0 || rest.as_bytes().get(start) != Some(&b'"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest[start + 1..].find(&end).map_or(rest.len(), |found| start + 1 + found + end.len()))
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest[1..].chars();
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// The ranges of items, variants, fields and arms under `#[cfg(test)]`.
fn test_parts(code: &str) -> Vec<Range<usize>> {
    let attribute = pattern(r"#!?\[cfg\((?:all\()?test\b");
    let mut parts: Vec<Range<usize>> = Vec::new();
    for found in attribute.find_iter(code) {
        if parts.last().is_some_and(|part| part.contains(&found.start())) {
            continue;
        }
        parts.push(found.start()..item_end(code, found.start()));
    }
    parts
}

/// The end of what the attribute at `start` belongs to.
fn item_end(code: &str, start: usize) -> usize {
    let bytes = code.as_bytes();
    let mut at = start;
    // Attributes.
    while code[at..].trim_start().starts_with('#') {
        at += code[at..].find('[').unwrap_or(0);
        at = group_end(bytes, at);
    }
    let item = pattern(
        r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:(fn|impl|mod|struct|enum|trait|async|unsafe|extern)|use|const|static|type)\b",
    );
    let (is_item, ends_with_body) = match item.captures(&code[at..]) {
        Some(captures) => (true, captures.get(1).is_some()),
        None => (false, true),
    };
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' => at = group_end(bytes, at),
            b'{' => {
                at = group_end(bytes, at);
                if ends_with_body {
                    return at;
                }
            }
            b';' => return at + 1,
            b',' if !is_item => return at + 1,
            b'}' => return at,
            _ => at += 1,
        }
    }
    at
}

/// The place after the bracket that closes the one at `start`.
pub(super) fn group_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

#[test]
fn sources_are_split_into_code_and_comments() {
    let text =
        "let a = \"// not\"; // yes 'x\nfn f<'a>(c: char) { c == '\"' || r#\"/* \"#.is_empty() } /* {\n */ let b;";
    let (code, comments) = split(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(comments.split_whitespace().collect::<Vec<_>>(), ["//", "yes", "'x", "/*", "{", "*/"]);
    assert!(code.contains("let b;") && code.contains("fn f<'a>(c: char) { c == ' '"), "{code}");
    assert!(!code.contains("not") && !code.contains("/*"), "{code}");
}

#[test]
fn test_parts_end_where_their_item_ends() {
    let text = "a();\n#[cfg(test)]\nmod tests { fn x() { {} } }\nb();\nenum E { A, #[cfg(test)] T(u8, u8), C }\n#[cfg(test)]\n#[allow(x)]\nuse a::{b, c};\nd();\nmatch e { #[cfg(test)] E::T(a, b) => f(a, b), E::C => g() }\n#[cfg(test)] fn h<A, B>() { i() }\nj();";
    let source = Source::new("src/x.rs".to_owned(), text.to_owned());
    for product in ["a();", "b();", "A,", "C }", "d();", "E::C =>", "j();"] {
        assert!(!source.is_test_part(text.find(product).unwrap()), "{product}");
    }
    for test in ["fn x", "T(u8", "use a", "f(a, b)", "i()"] {
        assert!(source.is_test_part(text.find(test).unwrap()), "{test}");
    }
}
