//! How sources look: short files, short functions, plain characters, nothing unfinished.

use crate::report;
use crate::scanner::{functions, is_word, product_lines, scan, words};
use crate::workspace::{File, files, product_files, rust_files};

/// A product file beyond this many lines fails.
const FILE_LINES_MAX: usize = 800;
/// A product file beyond this many lines says why in its module doc.
const FILE_LINES_WITH_REASON: usize = 500;
/// How that reason begins.
const REASON: &str = "This file is long";
/// A product function beyond this many lines fails, signature and closing brace counted.
const FUNCTION_LINES_MAX: usize = 70;
/// Widest line of Rust and of scripts.
const COLUMNS_MAX: usize = 120;

// Written in two halves, so that the rules do not find themselves.
const UNFINISHED_WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];
const UNFINISHED_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];
const PRIVATE_PATHS: &[&str] = &[concat!("/ro", "ot"), concat!("/ho", "me"), concat!("/t", "mp"), concat!("/wo", "rk")];

#[test]
fn product_files_are_short() {
    let mut breaches = Vec::new();
    for file in product_files() {
        let lines = file.text.lines().count();
        let reasoned = file.text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(REASON));
        if lines > FILE_LINES_MAX {
            breaches
                .push(format!("{} has {lines} lines; split it by thought, the limit is {FILE_LINES_MAX}", file.path));
        } else if lines > FILE_LINES_WITH_REASON && !reasoned {
            breaches
                .push(format!("{} has {lines} lines; split it, or say \"{REASON}, because\" in its //!", file.path));
        }
    }
    report("files are one thought each:", &breaches);
}

#[test]
fn product_functions_are_short() {
    let mut breaches = Vec::new();
    for file in product_files() {
        for function in functions(&product_lines(&file.text)) {
            if function.length > FUNCTION_LINES_MAX {
                let (name, length) = (&function.name, function.length);
                breaches.push(format!("{}:{}: {name} has {length} lines", file.path, function.line));
            }
        }
    }
    report(
        &format!("a function has at most {FUNCTION_LINES_MAX} lines; leave the control flow, move leaves out:"),
        &breaches,
    );
}

#[test]
fn lines_are_narrow() {
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| file.is_rust() || file.is_script()) {
        for (number, line) in file.numbered_lines() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                breaches.push(format!("{}:{number}: {columns} columns", file.path));
            }
        }
    }
    report(&format!("break these lines, {COLUMNS_MAX} columns is the limit:"), &breaches);
}

#[test]
fn sources_are_ascii() {
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| !file.is_document()) {
        for (number, line) in file.numbered_lines() {
            if let Some(character) = line.chars().find(|character| !character.is_ascii()) {
                breaches.push(format!("{}:{number}: {character:?}", file.path));
            }
        }
    }
    report("sources are ASCII; write -> for arrows, \\u{..} in strings:", &breaches);
}

#[test]
fn sources_have_no_tabs_and_no_trailing_blanks() {
    let mut breaches = Vec::new();
    for file in files() {
        for (number, line) in file.numbered_lines() {
            if line.contains('\t') || line.ends_with(' ') {
                breaches.push(format!("{}:{number}", file.path));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            breaches.push(format!("{}: no newline at the end", file.path));
        }
    }
    report("indent with blanks, end lines where their text ends:", &breaches);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut breaches = Vec::new();
    for file in files() {
        for (number, line) in file.numbered_lines() {
            let found = words(line).into_iter().find(|(_, word)| UNFINISHED_WORDS.contains(word));
            breaches.extend(found.map(|(_, word)| format!("{}:{number}: {word}", file.path)));
        }
    }
    for file in rust_files() {
        for (index, line) in scan(&file.text).iter().enumerate() {
            let is_macro = |&(start, word): &(usize, &str)| {
                UNFINISHED_MACROS.contains(&word) && line.code[start + word.len()..].starts_with('!')
            };
            let found = words(&line.code).into_iter().find(is_macro);
            breaches.extend(found.map(|(_, word)| format!("{}:{}: {word}!", file.path, index + 1)));
        }
    }
    report("finish it, or take it out and write it down in an issue:", &breaches);
}

#[test]
fn every_product_file_opens_with_its_purpose() {
    let breaches: Vec<String> =
        product_files().into_iter().filter(|file| !opens_with_doc(file)).map(|file| file.path).collect();
    report("begin the file with //! and say what it is for and what it must never do:", &breaches);
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let mut breaches = Vec::new();
    for file in rust_files() {
        let lines = scan(&file.text);
        for index in 0..lines.len() {
            let is_unsafe = words(&lines[index].code).iter().any(|&(_, word)| word == "unsafe");
            if is_unsafe && !is_justified(&lines, index) {
                breaches.push(format!("{}:{}", file.path, index + 1));
            }
        }
    }
    report("write // SAFETY: and the reason right above (or # Safety in the doc of an unsafe fn):", &breaches);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let mut breaches = Vec::new();
    for file in files() {
        for (number, line) in file.numbered_lines() {
            if let Some(path) = PRIVATE_PATHS.iter().find(|path| names_path(line, path)) {
                breaches.push(format!("{}:{number}: {path}", file.path));
            }
        }
    }
    report("use a relative path, ${HOME}, an option, or the tempfile crate in tests:", &breaches);
}

#[test]
fn the_rules_find_what_they_look_for() {
    for path in PRIVATE_PATHS {
        assert!(names_path(&format!("cd {path}/x"), path) && names_path(&format!("\"{path}\""), path));
        assert!(!names_path(&format!("${{HOME}}{path}"), path) && !names_path(&format!("{path}ed"), path));
    }
    let justified = scan("// SAFETY: a reason\n// that goes on\n#[inline]\nlet x =\n    unsafe { y };\nunsafe { z }\n");
    assert!(is_justified(&justified, 4));
    assert!(!is_justified(&justified, 5));
    let documented = scan("/// Does.\n///\n/// # Safety\n/// Callers check.\npub unsafe fn f() {}\n");
    assert!(is_justified(&documented, 4));
}

fn opens_with_doc(file: &File) -> bool {
    file.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > "//! ".len())
}

/// Looks upward from a line over its own statement, attributes and comments for a reason.
fn is_justified(lines: &[crate::scanner::Line], index: usize) -> bool {
    let reason = |comment: &str| comment.contains("SAFETY:") || comment.contains("# Safety");
    if reason(&lines[index].comment) {
        return true;
    }
    for line in lines[..index].iter().rev() {
        if reason(&line.comment) {
            return true;
        }
        let code = line.code.trim();
        let blank = code.is_empty() && line.comment.is_empty();
        let ends_statement = code.ends_with([';', '{', '}', ',']);
        if blank || ends_statement {
            return false;
        }
    }
    false
}

/// True if the line has this absolute path, and not as a part of a longer one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + path.len()..].chars().next();
        let part_of_path = |c: char| is_word(c) || matches!(c, '.' | '-' | '}' | '/' | '~' | '*');
        !before.is_some_and(part_of_path) && !after.is_some_and(|c| is_word(c) || c == '-')
    })
}
