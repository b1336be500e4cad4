use std::fmt::{self, Write as _};

/// Text that someone else chose, in a form that cannot deceive a terminal or its reader.
///
/// Control characters and those that change the direction of text or are not seen are written as
/// `\x1b` or `\u{202e}`.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    max: usize,
    tabs: bool,
    text: &'a str,
}

impl<'a> Shown<'a> {
    /// Shows one line, whole; tabs are kept.
    pub fn line(text: &'a str) -> Self {
        Self { max: usize::MAX, tabs: true, text }
    }

    /// Shows at most `max` characters, then `…`.
    pub fn short(text: &'a str, max: usize) -> Self {
        Self { max, tabs: false, text }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, c) in self.text.chars().enumerate() {
            if index == self.max {
                return f.write_char('…');
            }
            match c {
                '\t' if self.tabs => f.write_char(c)?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if !is_deceptive(c) => f.write_char(c)?,
                c if u32::from(c) < 0x100 => write!(f, "\\x{:02x}", u32::from(c))?,
                c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            }
        }
        Ok(())
    }
}

/// Tells whether a character controls a terminal, changes the direction of text or is not seen.
pub fn is_deceptive(c: char) -> bool {
    // Besides C0, DEL and C1: what Unicode lists as bidirectional controls (UAX 9), invisible
    // formatting, line and paragraph separators, and tags.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_no_character_of_the_server_reaches_the_terminal_as_a_control() {
        for (text, expected) in [
            ("plain äöü 漢", "plain äöü 漢"),
            ("a\tb", "a\tb"),
            ("\x1b[2J\x1b]8;;http://x\x07", "\\x1b[2J\\x1b]8;;http://x\\x07"),
            ("forged\rsuccess", "forged\\rsuccess"),
            ("two\nlines", "two\\nlines"),
            ("\u{9b}31m", "\\x9b31m"),
            ("\u{7f}\0", "\\x7f\\x00"),
            ("\u{202e}txt", "\\u{202e}txt"),
            ("\u{2066}\u{200b}\u{feff}\u{e0041}", "\\u{2066}\\u{200b}\\u{feff}\\u{e0041}"),
        ] {
            assert_eq!(Shown::line(text).to_string(), expected);
        }
    }

    #[test]
    fn short_text_is_cut_by_characters() {
        assert_eq!(Shown::short("äbc", 3).to_string(), "äbc");
        assert_eq!(Shown::short("äbcd", 3).to_string(), "äbc…");
        assert_eq!(Shown::short("\t", 3).to_string(), "\\t");
    }
}
