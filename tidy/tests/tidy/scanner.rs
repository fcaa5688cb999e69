//! A small reader of Rust source: enough to tell code from comments and strings, and to find where functions and
//! test modules begin and end. It counts braces; it is no parser.

/// One line of source, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// The code, with comments, strings and characters replaced by blanks.
    pub(crate) code: String,
    /// The text of comments that lie on this line.
    pub(crate) comment: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of the word `fn`, counted from 1.
    pub(crate) line: usize,
    /// Lines from there to the closing brace, both included.
    pub(crate) length: usize,
}

/// Takes a file apart, line by line.
pub(crate) fn scan(source: &str) -> Vec<Line> {
    let mut scanner = Scanner { characters: source.chars().collect(), position: 0, lines: vec![Line::default()] };
    while scanner.position < scanner.characters.len() {
        scanner.step();
    }
    scanner.lines
}

/// The lines with every item behind `#[cfg(test)]` blanked.
pub(crate) fn product_lines(source: &str) -> Vec<Line> {
    let mut lines = scan(source);
    let code = code_of(&lines);
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = item_end(&code, start);
        let first = line_of(&code, start) - 1;
        let last = line_of(&code, end.saturating_sub(1).max(start)) - 1;
        lines[first..=last].fill(Line::default());
        from = end;
    }
    lines
}

/// All functions of scanned lines, nested ones as well.
pub(crate) fn functions(lines: &[Line]) -> Vec<Function> {
    let code = code_of(lines);
    let mut found = Vec::new();
    for (start, word) in words(&code) {
        if word != "fn" {
            continue;
        }
        let rest = code[start + 2..].trim_start();
        let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
        let Some(body) = body_start(&code, start).filter(|_| !name.is_empty()) else { continue };
        let (first, last) = (line_of(&code, start), line_of(&code, matching_brace(&code, body)));
        found.push(Function { name, line: first, length: last - first + 1 });
    }
    found
}

/// All words (identifiers, keywords, numbers) of blanked code with their offsets.
pub(crate) fn words(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut start = None;
    for (offset, character) in code.char_indices().chain([(code.len(), ' ')]) {
        match (start, is_word(character)) {
            (None, true) => start = Some(offset),
            (Some(first), false) => {
                found.push((first, &code[first..offset]));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// The code of all lines as one text.
pub(crate) fn code_of(lines: &[Line]) -> String {
    lines.iter().map(|line| line.code.as_str()).collect::<Vec<_>>().join("\n")
}

pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

struct Scanner {
    characters: Vec<char>,
    position: usize,
    lines: Vec<Line>,
}

impl Scanner {
    fn step(&mut self) {
        match (self.at(0), self.at(1)) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('r', '"' | '#') if !self.inside_word() && self.raw_hashes(1).is_some() => self.raw_string(1),
            ('b', 'r') if !self.inside_word() && self.raw_hashes(2).is_some() => self.raw_string(2),
            ('\'', _) if self.is_character_literal() => self.character_literal(),
            _ => self.code(),
        }
    }

    fn at(&self, ahead: usize) -> char {
        self.characters.get(self.position + ahead).copied().unwrap_or('\0')
    }

    fn inside_word(&self) -> bool {
        self.position > 0 && is_word(self.characters[self.position - 1])
    }

    /// Takes one character into the code.
    fn code(&mut self) {
        let character = self.at(0);
        self.take(|line| line.code.push(character));
    }

    /// Takes one character of a string: a blank in the code.
    fn blank(&mut self) {
        self.take(|line| line.code.push(' '));
    }

    fn comment(&mut self) {
        let character = self.at(0);
        self.take(|line| line.comment.push(character));
    }

    fn take(&mut self, put: impl FnOnce(&mut Line)) {
        if self.at(0) == '\n' {
            self.lines.push(Line::default());
        } else {
            put(self.lines.last_mut().unwrap());
        }
        self.position += 1;
    }

    fn more(&self) -> bool {
        self.position < self.characters.len()
    }

    fn line_comment(&mut self) {
        while self.more() && self.at(0) != '\n' {
            self.comment();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.more() {
            match (self.at(0), self.at(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.comment();
                    continue;
                }
            }
            self.comment();
            self.comment();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.code();
        while self.more() && self.at(0) != '"' {
            if self.at(0) == '\\' {
                self.blank();
            }
            self.blank();
        }
        self.code();
    }

    /// Number of `#` of a raw string whose `#` or quote begins `ahead` characters on; `None` if it is none.
    fn raw_hashes(&self, ahead: usize) -> Option<usize> {
        let hashes = (0..).take_while(|&index| self.at(ahead + index) == '#').count();
        (self.at(ahead + hashes) == '"').then_some(hashes)
    }

    fn raw_string(&mut self, prefix: usize) {
        let hashes = self.raw_hashes(prefix).unwrap();
        for _ in 0..prefix + hashes + 1 {
            self.blank();
        }
        while self.more() {
            let closes = self.at(0) == '"' && (0..hashes).all(|index| self.at(1 + index) == '#');
            self.blank();
            if closes {
                (0..hashes).for_each(|_| self.blank());
                return;
            }
        }
    }

    /// A quote begins a character if a backslash or a closing quote follows; else it begins a lifetime.
    fn is_character_literal(&self) -> bool {
        self.at(1) == '\\' || (self.at(1) != '\'' && self.at(2) == '\'')
    }

    fn character_literal(&mut self) {
        self.code();
        if self.at(0) == '\\' {
            self.blank();
        }
        self.blank();
        while self.more() && self.at(0) != '\'' {
            self.blank();
        }
        self.code();
    }
}

/// Offset just behind the item that begins at `start`: its closing brace, or its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let attribute_end = start + code[start..].find(']').map_or(0, |end| end + 1);
    match body_start(code, attribute_end) {
        Some(brace) => matching_brace(code, brace) + 1,
        None => code[attribute_end..].find(';').map_or(code.len(), |end| attribute_end + end + 1),
    }
}

/// Offset of the first brace outside of parentheses and brackets; `None` if a semicolon comes first.
fn body_start(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, character) in code[start..].char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(start + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

/// Offset of the brace that closes the one at `open`; the end of the code if none does.
fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, character) in code[open..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len()
}

/// The line, counted from 1, of an offset.
fn line_of(code: &str, offset: usize) -> usize {
    code.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[test]
fn comments_and_strings_are_not_code() {
    let lines = scan("let a = \"{ // no\"; // { yes\nlet b = '{'; /* { /* } */ */ x");
    assert_eq!(lines[0].code, "let a = \"       \"; ");
    assert_eq!(lines[0].comment, "// { yes");
    assert_eq!(lines[1].code, "let b = ' ';  x");
    assert_eq!(lines[1].comment, "/* { /* } */ */");
}

#[test]
fn quotes_and_lifetimes_are_told_apart() {
    let lines = scan(r#"fn f<'a>(x: &'a str) -> char { '\'' } fn g() { "\"{" }"#);
    assert_eq!(lines[0].code.matches('{').count(), 2, "{}", lines[0].code);
    assert_eq!(lines[0].code.matches('}').count(), 2, "{}", lines[0].code);
    assert!(lines[0].code.contains("<'a>"));
    assert_eq!(scan(r"let q = '\u{7f}'; }")[0].code.matches('}').count(), 1);
}

#[test]
fn raw_strings_end_at_their_hashes() {
    let lines = scan("let a = r#\"one \" {\ntwo\"#; let b = br\"{\"; for_r#in");
    assert_eq!(lines.len(), 2);
    assert!(!code_of(&lines).contains('{'), "{lines:?}");
    assert!(lines[1].code.contains("let b"), "{lines:?}");
}

#[test]
fn functions_are_measured_from_their_name_to_their_brace() {
    let source = "fn one() {\n}\n\npub async fn two(\n    a: [u8; 4],\n) -> u8\nwhere\n    u8: Copy,\n{\n    { 1 }\n}\n\
                  trait T {\n    fn three(&self);\n}\ntype F = fn(u8) -> u8;\n";
    let found = functions(&scan(source));
    let measured: Vec<(&str, usize, usize)> =
        found.iter().map(|function| (function.name.as_str(), function.line, function.length)).collect();
    assert_eq!(measured, [("one", 1, 2), ("two", 4, 8)]);
}

#[test]
fn test_items_are_blanked() {
    let source = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[cfg(test)]\nuse x;\nfn c() {}\n";
    let found = functions(&product_lines(source));
    let names: Vec<&str> = found.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn words_are_whole() {
    let found: Vec<&str> = words("unsafe_code unsafe{x} a.unsafe").into_iter().map(|(_, word)| word).collect();
    assert_eq!(found, ["unsafe_code", "unsafe", "x", "a", "unsafe"]);
}
