//! Rules of the repository, as tests. Each failure says what to do.
//!
//! They read the sources as text, so that they also see what is switched off by `cfg`. [`Source`] tells code from comments,
//! strings and test-only parts; everything else is tables and searches.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::manual;
use crate::model::Code;
use crate::testing::teapot::PLACES;

use source::{SOURCES, group_end, is_test_file, pattern, rust_sources};

/// Which modules of the crate a module may import; anything is allowed from the module itself and from test-only parts.
const IMPORTS: &[(&str, Allowed)] = &[
    // Ring 0: the vocabulary.
    ("model", Allowed::Only(&[])),
    ("manual", Allowed::Only(&[])),
    // Ring 1: what users write.
    ("crd", Allowed::Only(&["model"])),
    // Ring 2: the inputs of now, and the memory of computations.
    ("store", Allowed::Only(&["model", "crd"])),
    ("memo", Allowed::Only(&[])),
    // Ring 3: what it means.
    ("ir", Allowed::Only(&["model"])),
    ("resolve", Allowed::Only(&["model", "crd", "ir"])),
    // Ring 4: what Envoy runs.
    ("snapshot", Allowed::Only(&["model"])),
    ("emit", Allowed::Only(&["model", "ir", "snapshot"])),
    // Ring 5: the pipeline.
    ("compile", Allowed::Only(&["model", "crd", "store", "memo", "ir", "resolve", "emit", "snapshot"])),
    // Ring 6: the edges.
    ("source", Allowed::Only(&["model", "crd"])),
    ("trust", Allowed::Only(&["model", "ir", "snapshot"])),
    ("memory", Allowed::Only(&["model", "ir", "snapshot", "publish"])),
    ("publish", Allowed::Only(&["model", "snapshot"])),
    ("xds", Allowed::Only(&["model", "snapshot", "publish"])),
    ("status", Allowed::Only(&["model", "snapshot", "publish", "source", "xds"])),
    ("api", Allowed::All),
    ("render", Allowed::Only(&["model", "snapshot"])),
    ("settings", Allowed::Only(&["model"])),
    ("telemetry", Allowed::Only(&["model"])),
    ("admin", Allowed::All),
    ("cli", Allowed::All),
    ("app", Allowed::All),
    // Only under cfg(test).
    ("testing", Allowed::All),
    ("tidy", Allowed::All),
];

/// What a row of [`IMPORTS`] allows.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    Only(&'static [&'static str]),
    All,
}

/// Modules that are a function of their arguments: no clock, environment, files, sockets, threads or chance.
const PURE: &[&str] = &["model", "crd", "store", "memo", "ir", "resolve", "emit", "snapshot", "compile"];

/// What pure modules do not mention. A path may also be written with braces: `use std::{env, fs}`.
const IMPURE: &[(&str, &str)] = &[
    (r"\bSystemTime::now\b", "takes the time as an argument"),
    (r"\bInstant::now\b", "takes the time as an argument"),
    (r"\bstd::env\b(?:[^!]|$)|\bstd::\{[^;]*\benv\b", "takes settings as arguments"),
    (r"\bstd::fs\b|\bstd::\{[^;]*\bfs\b", "takes contents as arguments; files belong to `source`"),
    (r"\bstd::net::Tcp|\bTcp(?:Listener|Stream)\b", "opens no sockets; they belong to `xds` and `admin`"),
    (r"\bstd::thread\b|\bstd::\{[^;]*\bthread\b", "starts no threads; `app` does"),
    (r"\btokio\b", "is synchronous; `app` and the edges are not"),
    (r"\brand\b", "is deterministic; identity enters as an argument"),
];

/// Where Envoy's messages may be named: files, and directories with a slash at the end.
const ENVOY_TYPES: &[&str] = &["src/emit/", "src/snapshot/verify.rs", "src/xds/", "src/render.rs", "src/render/"];

/// What finished code does not contain, in `src` and `e2e`.
const UNFINISHED: &[(&str, &str)] = &[
    (r"\btodo!", "write it, or leave it out"),
    (r"\bunimplemented!", "report `UNSUPPORTED`, or leave it out"),
    (r"#\[ignore\b", "repair the test, or delete it"),
    (r"\bthread::sleep\b", "wait for an event; time is an argument"),
];

/// Paths of the machine on which something was written, in two halves so that this file does not contain them.
const MACHINE_PATHS: &[(&str, &str)] = &[("/ro", "ot/"), ("/wo", "rk/"), ("/tm", "p/")];

const MAX_SOURCE_LINES: usize = 900;
const MAX_MARKDOWN_LINE: usize = 400;

/// Rules that no test can cite by itself, each with its reason.
const NOT_TESTED: &[(u32, &str)] = &[
    (8, "order of the work, which the modules are"),
    (9, "architecture: there is no state to test"),
    (147, "definition"),
    (148, "definition"),
];

/// Fails with all complaints at once.
fn report(advice: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{advice}\n  {}\n", complaints.join("\n  "));
}

// ---------------------------------------------------------------------------------------------------------------------
// Modules
// ---------------------------------------------------------------------------------------------------------------------

/// The modules that a text names as `crate::x` or `crate::{x::…, y}`, with their places.
fn crate_paths(code: &str) -> Vec<(usize, &str)> {
    let name = pattern(r"^\s*([a-z_0-9]+)\b");
    let mut paths = Vec::new();
    for found in pattern(r"\bcrate::").find_iter(code) {
        let start = found.end();
        if code.as_bytes().get(start) != Some(&b'{') {
            paths.extend(name.captures(&code[start..]).map(|c| (found.start(), c.get(1).map_or("", |m| m.as_str()))));
            continue;
        }
        let end = group_end(code.as_bytes(), start);
        let (mut at, mut fresh) = (start + 1, true);
        while at < end {
            match code.as_bytes()[at] {
                b'{' => at = group_end(code.as_bytes(), at),
                b',' => (at, fresh) = (at + 1, true),
                byte if fresh && !byte.is_ascii_whitespace() => {
                    paths.extend(name.captures(&code[at..end]).map(|c| (at, c.get(1).map_or("", |m| m.as_str()))));
                    (at, fresh) = (at + 1, false);
                }
                _ => at += 1,
            }
        }
    }
    paths
}

#[test]
fn crate_paths_are_found_in_every_form() {
    let code =
        "use crate::model::{Name, id::Kind};\nuse crate::{crd::{Spec, Meta}, ir, snapshot::*};\ncrate::xds::serve();";
    let names: Vec<&str> = crate_paths(code).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["model", "crd", "ir", "snapshot", "xds"]);
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, Allowed> = IMPORTS.iter().copied().collect();
    let supers = pattern(r"\b(?:super::)+");
    let mut complaints = Vec::new();
    for source in rust_sources("src/") {
        let Some(module) = source.module() else { continue };
        let Some(&allowed) = table.get(module) else {
            complaints.push(format!("{}: module `{module}` has no row in IMPORTS; add one", source.path));
            continue;
        };
        for (at, target) in crate_paths(&source.code) {
            if source.is_test_part(at) || target == module {
                continue;
            }
            match allowed {
                _ if !table.contains_key(target) => {
                    complaints.push(format!("{}: `crate::{target}` is not a module of IMPORTS", source.place(at)));
                }
                Allowed::Only(list) if !list.contains(&target) => {
                    let list = if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
                    complaints
                        .push(format!("{}: `{module}` imports `{target}`; it may import {list}", source.place(at)));
                }
                Allowed::Only(_) | Allowed::All => {}
            }
        }
        // `super::` must not climb out of the module unseen.
        let depth = source.path.trim_end_matches("/mod.rs").matches('/').count() - 1;
        for (at, climb) in source.in_product_code(&supers) {
            if climb.matches("super").count() > depth && matches!(allowed, Allowed::Only(_)) {
                complaints.push(format!("{}: write `crate::…` for what lies outside of `{module}`", source.place(at)));
            }
        }
    }
    report(
        "a module knows only the modules that src/tidy.rs, IMPORTS, names; move the code, or pass a value in:",
        &complaints,
    );
}

#[test]
fn pure_modules_ask_the_world_for_nothing() {
    let mut complaints = Vec::new();
    for (text, instead) in IMPURE {
        let banned = pattern(text);
        for source in rust_sources("src/").filter(|source| source.module().is_some_and(|m| PURE.contains(&m))) {
            for (at, found) in source.in_product_code(&banned) {
                complaints.push(format!("{}: `{}`; a pure module {instead}", source.place(at), found.trim()));
            }
        }
    }
    report("pure modules give the same result for the same arguments, everywhere and always:", &complaints);
}

#[test]
fn envoy_messages_stay_where_they_are_made_and_checked() {
    let banned = pattern(r"\benvoy_types\b");
    let complaints: Vec<String> = rust_sources("src/")
        .filter(|source| !ENVOY_TYPES.iter().any(|place| source.path.starts_with(place)))
        .flat_map(|source| source.in_product_code(&banned).map(|(at, _)| source.place(at)))
        .collect();
    report(
        "`envoy_types` is for emit, snapshot/verify.rs, xds and render; elsewhere use `ir` or `snapshot`:",
        &complaints,
    );
}

#[test]
fn a_policy_kind_is_mentioned_in_few_places() {
    let teapot = pattern("(?i)teapot");
    let files: BTreeSet<&str> = rust_sources("src/")
        .filter(|source| !is_test_file(&source.path) && teapot.is_match(&source.text))
        .map(|source| source.path.as_str())
        .collect();
    let listed: BTreeSet<&str> = PLACES.iter().map(|(path, _)| *path).collect();
    let differences: Vec<String> = files.symmetric_difference(&listed).map(|path| (*path).to_owned()).collect();
    report(
        "the made-up kind `Teapot` shows what adding a policy kind takes: a name, a manifest type, an effect, a meaning, \
         an emission, and their registrations, as src/testing/teapot.rs lists them. A file more is a cost for every kind; \
         find a place that serves all kinds alike. These files differ from the list:",
        &differences,
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Hygiene
// ---------------------------------------------------------------------------------------------------------------------

/// Where time passes without an event to wait for, and why.
const WAITS: &[(&str, &str)] = &[
    ("src/source/directory/read.rs", "a file that is being written while it is read once has no event"),
    ("e2e/support/wait.rs", "the one place in which the tests ask again until something holds"),
    ("e2e/bench/b6.rs", "writes at a steady rate: the pace is what is measured against"),
    ("e2e/bench/b8.rs", "Envoy's workers may differ for a moment, and nothing tells when they agree"),
    ("e2e/bench/probe.rs", "asks at a steady rate, so that asking does not take the time that it measures"),
];

#[test]
fn nothing_is_left_unfinished() {
    let mut complaints = Vec::new();
    for (text, instead) in UNFINISHED {
        let banned = pattern(text);
        for source in rust_sources("src/").chain(rust_sources("e2e/")) {
            for found in banned.find_iter(&source.code) {
                if WAITS.iter().any(|(path, _)| *path == source.path && found.as_str().contains("sleep")) {
                    continue;
                }
                complaints.push(format!("{}: `{}`; {instead}", source.place(found.start()), found.as_str()));
            }
        }
    }
    report("take these out:", &complaints);
}

#[test]
fn no_file_names_a_machine() {
    let mut complaints = Vec::new();
    for (head, tail) in MACHINE_PATHS {
        let path = format!("{head}{tail}");
        for source in SOURCES.iter() {
            for (at, _) in source.text.match_indices(&path) {
                complaints.push(format!("{}: `{path}`", source.place(at)));
            }
        }
    }
    report("use paths relative to the repository, or a directory that the caller gives:", &complaints);
}

#[test]
fn files_and_lines_are_short_enough_to_read() {
    let mut complaints = Vec::new();
    for source in SOURCES.iter().filter(|source| source.path.starts_with("src/")) {
        let lines = source.text.lines().count();
        if source.is_rust() && lines > MAX_SOURCE_LINES {
            complaints.push(format!("{}: {lines} lines; split it by idea, {MAX_SOURCE_LINES} at most", source.path));
        }
        if !source.path.starts_with("src/manual/") {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            if !line.starts_with('|') && line.chars().count() > MAX_MARKDOWN_LINE {
                complaints.push(format!("{}:{}: one sentence per line, and a shorter one", source.path, number + 1));
            }
        }
    }
    report("too long:", &complaints);
}

// ---------------------------------------------------------------------------------------------------------------------
// The manual
// ---------------------------------------------------------------------------------------------------------------------

/// The first words of a line that says what happens instead of a part that is not built.
const NOT_BUILT: &str = "**Not built yet.**";

/// A definition in the manual.
struct Definition {
    page: String,
    built: bool,
    place: String,
}

/// What the manual defines, by letter and number; several entries are several definitions.
fn definitions() -> BTreeMap<(char, u32), Vec<Definition>> {
    let bold = pattern(r"\*\*([RD])(\d+)\*\*");
    let mut found: BTreeMap<(char, u32), Vec<Definition>> = BTreeMap::new();
    for source in SOURCES.iter().filter(|source| source.path.starts_with("src/manual/")) {
        // The heading level under which nothing is built.
        let (mut level, mut unbuilt) = (0, None);
        for (number, line) in source.text.lines().enumerate() {
            if let Some(depth) = heading_level(line) {
                level = depth;
                unbuilt = unbuilt.filter(|&above| depth > above);
            }
            if line.starts_with(NOT_BUILT) {
                unbuilt = Some(unbuilt.map_or(level, |above: usize| above.min(level)));
            }
            for captures in bold.captures_iter(line) {
                let letter = if &captures[1] == "R" { 'R' } else { 'D' };
                let definition = Definition {
                    page: source.path.trim_start_matches("src/manual/").to_owned(),
                    built: unbuilt.is_none(),
                    place: format!("{}:{}", source.path, number + 1),
                };
                found.entry((letter, captures[2].parse().unwrap())).or_default().push(definition);
            }
        }
    }
    found
}

fn heading_level(line: &str) -> Option<usize> {
    let hashes = line.bytes().take_while(|b| *b == b'#').count();
    (hashes > 0 && line[hashes..].starts_with(' ')).then_some(hashes)
}

fn page(name: &str) -> &'static str {
    let path = format!("src/manual/{name}");
    &SOURCES.iter().find(|source| source.path == path).expect("the page exists").text
}

#[test]
fn every_rule_and_decision_is_defined_once() {
    let definitions = definitions();
    let mut complaints = Vec::new();
    for letter in ['R', 'D'] {
        let last = definitions.keys().filter(|(l, _)| *l == letter).map(|(_, n)| *n).max().unwrap_or(0);
        for number in 1..=last {
            let places: Vec<&str> =
                definitions.get(&(letter, number)).into_iter().flatten().map(|d| d.place.as_str()).collect();
            match places[..] {
                [] => complaints.push(format!("{letter}{number} is missing: numbers are never given up")),
                [_] => {}
                _ => complaints.push(format!("{letter}{number} is defined in {}", places.join(" and "))),
            }
        }
    }
    report(
        "a definition is a line of src/manual that starts with the number in bold, once; cite it without bold:",
        &complaints,
    );
}

#[test]
fn the_index_knows_the_page_of_every_rule_and_decision() {
    let mut listed: BTreeMap<(char, u32), String> = BTreeMap::new();
    for row in pattern(r"(?m)^\| R(\d+)(?:–R(\d+))? \| (\S+) \|$").captures_iter(page("index.md")) {
        let first: u32 = row[1].parse().unwrap();
        let last = row.get(2).map_or(first, |last| last.as_str().parse().unwrap());
        for number in first..=last {
            listed.insert(('R', number), row[3].to_owned());
        }
    }
    for row in pattern(r"(?m)^\| D(\d+) \| .* \| (\S+) \|$").captures_iter(page("index.md")) {
        listed.insert(('D', row[1].parse().unwrap()), row[2].to_owned());
    }
    let complaints: Vec<String> = definitions()
        .iter()
        .filter(|(key, defined)| listed.get(key) != Some(&defined[0].page))
        .map(|((letter, number), defined)| {
            let says = listed.get(&(*letter, *number)).map_or("nothing", String::as_str);
            format!("{letter}{number} stands in {}, the index says {says}", defined[0].page)
        })
        .collect();
    report("correct the tables of src/manual/index.md:", &complaints);
}

#[test]
fn what_is_not_built_is_marked_below_a_heading() {
    let mut complaints = Vec::new();
    for source in SOURCES.iter().filter(|source| source.path.starts_with("src/manual/")) {
        let mut above = "";
        for (number, line) in source.text.lines().enumerate() {
            if line.starts_with(NOT_BUILT) && (heading_level(above).is_none() || line.len() < NOT_BUILT.len() + 20) {
                complaints.push(format!("{}:{}", source.path, number + 1));
            }
            if !line.is_empty() {
                above = line;
            }
        }
    }
    report(
        "`Not built yet.` follows a heading, covers its whole section, and goes on with what happens instead:",
        &complaints,
    );
    let definitions = definitions();
    let built = |number| definitions[&('R', number)][0].built;
    assert!(built(139) && built(140) && built(69) && built(204) && built(186) && built(178) && !built(121));
}

#[test]
fn every_citation_has_its_rule() {
    let definitions = definitions();
    let cited = pattern(r"\b([RD])(\d{1,3})\b");
    let mut complaints = Vec::new();
    for source in SOURCES.iter() {
        let ours = source.path.starts_with("src/") || source.path.starts_with("e2e/") || source.path == "README.md";
        let readable = [".rs", ".md", ".yaml", ".yml"].iter().any(|ending| source.path.ends_with(ending));
        if !ours || !readable || source.path.starts_with("src/tidy") {
            continue;
        }
        for captures in cited.captures_iter(&source.text) {
            let at = captures.get(0).map_or(0, |m| m.start());
            let letter = if &captures[1] == "R" { 'R' } else { 'D' };
            // A `D1` in code may be anything.
            let is_prose = !source.is_rust() || &source.comments[at..=at] == captures[1].as_ref() as &str;
            let number: u32 = captures[2].parse().unwrap();
            let known = definitions.contains_key(&(letter, number));
            if !known && (letter == 'R' || (is_prose && captures[2].len() < 3)) {
                complaints.push(format!("{}: {letter}{number}", source.place(at)));
            }
        }
    }
    report("cite a rule or decision that src/manual defines, or define it there:", &complaints);
}

#[test]
fn pages_are_registered_and_linked_by_names_that_exist() {
    let files: BTreeSet<&str> = manual::FILES.iter().copied().collect();
    let mut complaints = Vec::new();
    let link = pattern(r"\[([a-z-]+\.md)\]");
    for source in SOURCES.iter().filter(|source| source.path.starts_with("src/manual/")) {
        let name = source.path.trim_start_matches("src/manual/");
        if !files.contains(name) {
            complaints.push(format!("{}: add it to src/manual.rs", source.path));
        }
        if !page("index.md").contains(&format!("[{name}]")) && name != "index.md" {
            complaints.push(format!("{}: add it to the pages of src/manual/index.md", source.path));
        }
        for captures in link.captures_iter(&source.text) {
            if !files.contains(&captures[1]) {
                complaints.push(format!("{}: there is no page [{}]", source.path, &captures[1]));
            }
        }
    }
    report("the pages of the manual:", &complaints);
}

#[test]
fn examples_of_the_manual_are_yaml() {
    let fence = pattern(r"(?m)^```(\w*)\n((?s:.*?))^```$");
    let mut complaints = Vec::new();
    for source in SOURCES.iter().filter(|source| source.path.starts_with("src/manual/")) {
        for captures in fence.captures_iter(&source.text) {
            let place = source.place(captures.get(0).map_or(0, |m| m.start()));
            match &captures[1] {
                "yaml" => {
                    let bad = saphyr_parser::Parser::new_from_str(&captures[2]).find_map(Result::err);
                    complaints.extend(bad.map(|error| format!("{place}: {error}")));
                }
                "text" => {}
                other => complaints.push(format!("{place}: mark the example as yaml or text, not `{other}`")),
            }
        }
    }
    report("examples are manifest fragments that a reader can copy:", &complaints);
}

#[test]
fn every_finding_code_has_its_row() {
    let text = page("invalid.md");
    let section = text.split("## Finding codes").nth(1).expect("invalid.md has the section");
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows: Vec<String> = pattern(r"(?m)^\| `([A-Z_]+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$")
        .captures_iter(section)
        .map(|row| row[1].to_owned())
        .collect();
    let codes: Vec<String> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let mut complaints = String::new();
    for code in &codes {
        if rows.iter().filter(|row| *row == code).count() != 1 {
            write!(complaints, "\n  `{code}` needs one row").unwrap();
        }
    }
    for row in rows.iter().filter(|row| !codes.contains(row)) {
        write!(complaints, "\n  `{row}` is not a code").unwrap();
    }
    assert!(
        complaints.is_empty(),
        "\"Finding codes\" of src/manual/invalid.md says for each code what triggers it, how the configuration degrades, \
         and what to do, in four columns:{complaints}"
    );
}

/// The rules that tests cite: `R85` anywhere in a test, or `r85` as a word of a name in one.
fn tested_rules() -> BTreeSet<u32> {
    let word = pattern(r"[A-Za-z0-9_]+");
    let mut tested = BTreeSet::new();
    for source in rust_sources("src/").chain(rust_sources("e2e/")) {
        if source.path.starts_with("src/tidy") {
            continue;
        }
        for found in word.find_iter(&source.text).filter(|found| source.is_test_part(found.start())) {
            tested.extend(found.as_str().split('_').filter_map(|part| {
                let number = part.strip_prefix(['R', 'r'])?;
                number.parse::<u32>().ok()
            }));
        }
    }
    // A rule case stands below a heading that names its rules.
    let heading = pattern(r"(?m)^## (.*)$");
    let rule = pattern(r"\bR(\d{1,3})\b");
    for source in SOURCES.iter().filter(|source| source.path.starts_with("src/cases/")) {
        for title in heading.captures_iter(&source.text) {
            tested.extend(rule.captures_iter(&title[1]).filter_map(|found| found[1].parse::<u32>().ok()));
        }
    }
    tested
}

#[test]
fn every_rule_has_a_test() {
    let tested = tested_rules();
    let excused: BTreeSet<u32> = NOT_TESTED.iter().map(|(number, _)| *number).collect();
    let definitions = definitions();
    let mut uncovered: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((letter, number), defined) in &definitions {
        if *letter == 'R' && defined[0].built && !tested.contains(number) && !excused.contains(number) {
            uncovered.entry(&defined[0].page).or_default().push(format!("R{number}"));
        }
    }
    let count: usize = uncovered.values().map(Vec::len).sum();
    let mut complaints: Vec<String> =
        uncovered.iter().map(|(page, rules)| format!("{page}: {}", rules.join(", "))).collect();
    for number in &excused {
        let unneeded = tested.contains(number) || definitions.get(&('R', *number)).is_none_or(|d| !d[0].built);
        if unneeded {
            complaints.push(format!("R{number} needs no excuse in NOT_TESTED; take it out"));
        }
    }
    let advice = format!(
        "{count} rules are built without a test; name a test after the rule (`r85_…`) or cite it in one (`R85`), under \
         `cfg(test)` in src or in e2e. A rule that no test can show goes to NOT_TESTED with the reason, one that is not \
         built goes below `Not built yet.`:"
    );
    report(&advice, &complaints);
}
