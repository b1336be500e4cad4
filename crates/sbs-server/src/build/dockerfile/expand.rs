//! The variables of a Dockerfile's words: `$X`, `${X}`, `${X:-default}`, `${X:+other}`, and quotes.

/// What a variable without a value gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Undefined {
    /// Nothing, as in the default of an `ARG`.
    Empty,
    /// An error.
    Refuse,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ExpandError {
    /// Its form is not one that is understood here.
    Form,
    /// It is too long or too deep.
    Limit,
    /// The variable has no value.
    Undefined(String),
}

/// Returns the word with its variables replaced and its quotes and backslashes taken away.
pub(super) fn expand(
    word: &str,
    undefined: Undefined,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    let mut expander = Expander { rest: word, undefined, value };
    let text = expander.until(None, 0)?;
    if expander.rest.is_empty() { Ok(text) } else { Err(ExpandError::Form) }
}

/// Splits text at spaces that are not quoted; quotes and backslashes stay.
pub(super) fn split_words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quote, mut escaped) = (None, None, false);
    for (at, c) in text.char_indices() {
        if quote.is_none() && !escaped && matches!(c, ' ' | '\t' | '\n' | '\r') {
            words.extend(start.take().and_then(|start| text.get(start..at)));
            continue;
        }
        start.get_or_insert(at);
        if escaped {
            escaped = false;
        } else if c == '\\' && quote != Some('\'') {
            escaped = true;
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
        }
    }
    words.extend(start.and_then(|start| text.get(start..)));
    words
}

struct Expander<'a> {
    rest: &'a str,
    undefined: Undefined,
    value: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Expander<'a> {
    /// Expands up to `end`, which is taken, or to the end of the word.
    fn until(&mut self, end: Option<char>, depth: usize) -> Result<String, ExpandError> {
        if depth > MAX_DEPTH {
            return Err(ExpandError::Limit);
        }
        let mut text = String::new();
        loop {
            let Some(c) = self.next() else {
                return if end.is_none() { Ok(text) } else { Err(ExpandError::Form) };
            };
            if Some(c) == end {
                return Ok(text);
            }
            match c {
                '\'' if end != Some('"') => {
                    let (quoted, rest) = self.rest.split_once('\'').ok_or(ExpandError::Form)?;
                    text.push_str(quoted);
                    self.rest = rest;
                }
                '"' => text.push_str(&self.until(Some('"'), depth + 1)?),
                '\\' => text.push(self.next().ok_or(ExpandError::Form)?),
                '$' => text.push_str(&self.variable(depth)?),
                c => text.push(c),
            }
            if text.len() > MAX_VALUE_BYTES {
                return Err(ExpandError::Limit);
            }
        }
    }

    /// Expands what follows a `$`.
    fn variable(&mut self, depth: usize) -> Result<String, ExpandError> {
        let Some(rest) = self.rest.strip_prefix('{') else {
            let name = self.name();
            return if name.is_empty() { Err(ExpandError::Form) } else { self.lookup(name) };
        };
        self.rest = rest;
        let name = self.name();
        if name.is_empty() {
            return Err(ExpandError::Form);
        }
        if let Some(rest) = self.rest.strip_prefix('}') {
            self.rest = rest;
            return self.lookup(name);
        }
        let colon = self.rest.strip_prefix(':');
        self.rest = colon.unwrap_or(self.rest);
        let operator = self.next();
        // The other word is expanded only where it is used: it may name what has no value.
        let given = (self.value)(name).filter(|value| colon.is_none() || !value.is_empty());
        match (operator, given) {
            (Some('-'), None) | (Some('+'), Some(_)) => self.until(Some('}'), depth + 1),
            (Some('-'), Some(value)) => self.skip(depth).map(|()| value),
            (Some('+'), None) => self.skip(depth).map(|()| String::new()),
            _ => Err(ExpandError::Form),
        }
    }

    /// Passes over the word of an operator that is not used, and its closing brace.
    fn skip(&mut self, depth: usize) -> Result<(), ExpandError> {
        let mut ignoring = Expander {
            rest: self.rest,
            undefined: Undefined::Empty,
            value: &|_| Some(String::new()),
        };
        ignoring.until(Some('}'), depth + 1)?;
        self.rest = ignoring.rest;
        Ok(())
    }

    fn lookup(&self, name: &str) -> Result<String, ExpandError> {
        match ((self.value)(name), self.undefined) {
            (Some(value), _) => Ok(value),
            (None, Undefined::Empty) => Ok(String::new()),
            (None, Undefined::Refuse) => Err(ExpandError::Undefined(name.to_owned())),
        }
    }

    fn name(&mut self) -> &'a str {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }
}

const MAX_DEPTH: usize = 16;
/// Bytes of a word's value: an image reference is under 600; values can double with every `ARG`.
const MAX_VALUE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "B" => Some("b c".to_owned()),
            "EMPTY" => Some(String::new()),
            "LONG" => Some("x".repeat(3000)),
            _ => None,
        }
    }

    #[test]
    fn expands_what_docker_expands() {
        for (word, expected) in [
            ("x", "x"),
            ("$A", "a"),
            ("x-$A-y", "x-a-y"),
            ("${A}b", "ab"),
            ("${A:-d}", "a"),
            ("${NO:-d}", "d"),
            ("${NO-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:+o}", "o"),
            ("${NO:+o}", ""),
            ("${EMPTY:+o}", ""),
            ("${EMPTY+o}", "o"),
            ("${NO:-${ALSO:-$A}}", "a"),
            ("${NO:-x${A}}y", "xay"),
            ("${A:-$NO}", "a"),
            ("${NO:+$NO}", ""),
            ("\"$A\"", "a"),
            ("'$A'", "$A"),
            ("\"it's $A\"", "it's a"),
            ("\\$A", "$A"),
            ("${NO:-\"}\"}", "}"),
            ("$A$B", "ab c"),
        ] {
            assert_eq!(expand(word, Undefined::Refuse, &value).unwrap(), expected, "{word}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for word in ["$", "${", "${}", "${A", "${A:?x}", "${A#x}", "${A:", "'a", "\"a", "a\\", "$-"]
        {
            assert_eq!(expand(word, Undefined::Refuse, &value), Err(ExpandError::Form), "{word}");
        }
        let undefined = Err(ExpandError::Undefined("NO".to_owned()));
        assert_eq!(expand("a$NO", Undefined::Refuse, &value), undefined);
        assert_eq!(expand("a$NO", Undefined::Empty, &value).unwrap(), "a");
        assert_eq!(expand("$LONG$LONG", Undefined::Refuse, &value), Err(ExpandError::Limit));
        let deep = "${NO:-".repeat(100);
        assert_eq!(expand(&deep, Undefined::Refuse, &value), Err(ExpandError::Limit));
    }

    #[test]
    fn words_end_at_spaces_outside_quotes() {
        let words = split_words(" A=1  B=\"x y\"\tC='d \\' D=e\\ f ");
        assert_eq!(words, ["A=1", "B=\"x y\"", "C='d \\'", "D=e\\ f"]);
        assert!(split_words("  ").is_empty());
    }
}
