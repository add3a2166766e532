//! Text from elsewhere, made fit for a host's terminal and for a file name.

/// The text with nothing in it that a terminal obeys, trimmed, of at most `limit` bytes:
/// white space of every kind becomes a space, and control characters and those that
/// change the direction of writing become U+FFFD, as do bytes that are not UTF-8.
pub fn printable(text: &[u8], limit: usize) -> String {
    let mut result = String::new();
    for character in String::from_utf8_lossy(text).trim().chars() {
        let character = match character {
            '\t'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                char::REPLACEMENT_CHARACTER
            }
            control if control.is_control() => char::REPLACEMENT_CHARACTER,
            other => other,
        };
        if result.len() + character.len_utf8() > limit {
            break;
        }
        result.push(character);
    }
    result
}

/// Whether `name` may name a service, user, check or probe:
/// `^[a-z_][a-z0-9_-]{0,30}$`.
pub fn is_name(name: &str) -> bool {
    let rest =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    match name.as_bytes() {
        [first, others @ ..] => {
            (first.is_ascii_lowercase() || *first == b'_')
                && others.len() <= 30
                && others.iter().all(|&byte| rest(byte))
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_does_not_get_through() {
        let hostile = "a\x1b[2Jb\u{9b}31mc\x07\x7f\0d\u{202e}e";
        let seen = printable(hostile.as_bytes(), 100);
        assert_eq!(
            seen,
            "a\u{fffd}[2Jb\u{fffd}31mc\u{fffd}\u{fffd}\u{fffd}d\u{fffd}e"
        );
    }

    #[test]
    fn lines_become_one_line() {
        assert_eq!(printable(b"\none\ttwo\r\nthree\n", 100), "one two  three");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(printable(b"a\xff\xc3", 100), "a\u{fffd}\u{fffd}");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(printable("ééé".as_bytes(), 5), "éé");
    }

    #[test]
    fn names_follow_the_pattern() {
        for name in ["a", "_", "web-1", "a_b", &"a".repeat(31)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "1a",
            "-a",
            "A",
            "a/b",
            "..",
            "a.b",
            "a\n",
            "é",
            &"a".repeat(32),
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
