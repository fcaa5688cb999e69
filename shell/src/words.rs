//! Splits a line of the prompt into words.
//!
//! Blanks separate words. Quotes, single or double, keep blanks inside a word and may be empty. A backslash and the
//! character behind it stay as they are, for the escapes of keys and values to be read later; so `\"` inside quotes is
//! a quote, and `\x20` is a blank.

/// The words of a line, or what is wrong with it.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => {
                let word = word.get_or_insert_default();
                word.push('\\');
                word.extend(characters.next());
            }
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    match quote {
        Some(quote) => Err(format!("the quote {quote} is not closed")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::{escape, unescape};
    use proptest::prelude::*;

    #[test]
    fn known_lines() {
        let split = |line: &str| split(line).expect("a sound line");
        assert_eq!(split("  set h  s\tv "), ["set", "h", "s", "v"]);
        assert_eq!(split(r#"set "a b" '' 'x"y'"#), ["set", "a b", "", "x\"y"]);
        assert_eq!(split(r#"set "a\"b" c\ d"#), ["set", r#"a\"b"#, r"c\ d"]);
        assert_eq!(split(r"set \x20\\"), ["set", r"\x20\\"]);
        assert!(split("").is_empty());
        assert!(super::split("get \"h").unwrap_err().contains("not closed"));
    }

    proptest! {
        #[test]
        fn quoted_escapes_come_through(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let quoted = format!("get \"{}\" s", escape(&bytes).replace('"', "\\\""));
            let words = split(&quoted).expect("a sound line");
            prop_assert_eq!(words.len(), 3);
            prop_assert_eq!(unescape(words[1].as_bytes()).expect("sound escapes"), bytes);
        }
    }
}
