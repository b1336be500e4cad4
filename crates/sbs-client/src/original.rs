//! The v1 reply that holds a file, decoded while it comes: a JSON object (RFC 8259) whose one long
//! string is base64 (RFC 4648).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::{CallError, limits};

/// What the members of the reply are called.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The long string, base64.
    file: &'static str,
    /// The name of the file.
    name: &'static str,
    /// A member of any type that is handed on as it came.
    kept: Option<&'static str>,
    not_base64: &'static str,
}

impl Keys {
    /// Those of a manifest.
    pub(crate) const MANIFEST: Self = Self {
        file: "encoded_manifest",
        name: "manifest_name",
        kept: None,
        not_base64: "`encoded_manifest` is not standard base64",
    };

    /// Those of a state image. Nobody has said what type `export_tag` has.
    pub(crate) const STATE: Self = Self {
        file: "state",
        name: "name",
        kept: Some("export_tag"),
        not_base64: "`state` is not standard base64",
    };
}

/// What a reply holds besides the file.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// The name, not yet looked at.
    pub(crate) name: String,
    /// The member that is handed on, if it was there.
    pub(crate) kept: Option<Value>,
}

/// Takes the reply in pieces and gives the bytes of the file.
#[derive(Debug)]
pub(crate) struct ReplyDecoder {
    keys: Keys,
    state: State,
    /// The bytes that are not of the file, which are few.
    others: u64,
    /// The characters so far of a key or name.
    text: String,
    /// What follows a backslash, so far.
    escape: Option<Vec<u8>>,
    /// Characters of base64 that do not make a whole unit yet.
    unit: Vec<u8>,
    /// The file's base64 has come to its padding.
    padded: bool,
    file: bool,
    name: Option<String>,
    /// The JSON of the member that is handed on, so far.
    kept: Option<Vec<u8>>,
    keeping: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    AfterKey,
    AfterObject,
    AfterValue,
    BeforeKey {
        first: bool,
    },
    BeforeObject,
    BeforeValue(Member),
    InString(Member),
    InKey,
    /// In a value that means nothing here: so many brackets deep, in a string or not.
    PassingOver {
        depth: usize,
        string: Quoted,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Member {
    File,
    Kept,
    Name,
    Other,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Quoted {
    No,
    Yes,
    /// In a string, behind a backslash.
    Escaped,
}

impl ReplyDecoder {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            state: State::BeforeObject,
            others: 0,
            text: String::new(),
            escape: None,
            unit: Vec::new(),
            padded: false,
            file: false,
            name: None,
            kept: None,
            keeping: false,
        }
    }

    /// Takes the next bytes of the reply and appends what they hold of the file to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CallError> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.state == State::InString(Member::File) && self.escape.is_none() {
                let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
                let (text, behind) = rest.split_at(end.unwrap_or(rest.len()));
                self.take_base64(text, out)?;
                if !text.is_empty() {
                    rest = behind;
                    continue;
                }
            }
            self.others += 1;
            if self.others > limits::REPLY_BYTES {
                return Err(CallError::TooLarge { limit: limits::REPLY_BYTES });
            }
            self.take(byte, out)?;
            rest = after;
        }
        Ok(())
    }

    /// Ends the reply.
    pub(crate) fn finish(self) -> Result<Decoded, CallError> {
        if self.state != State::AfterObject || !self.file {
            return Err(NOT_THE_JSON);
        }
        let kept = self.kept.map(|json| serde_json::from_slice(&json)).transpose();
        let kept = kept.map_err(|_| NOT_THE_JSON)?;
        Ok(Decoded { name: self.name.ok_or(NOT_THE_JSON)?, kept })
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), CallError> {
        self.state = match (self.state, byte) {
            (State::InKey, _) => match self.take_character(byte)? {
                Taken::Character(character) => {
                    self.text.push(character);
                    State::InKey
                }
                Taken::Nothing => State::InKey,
                Taken::End => State::AfterKey,
            },
            (State::InString(member), _) => self.take_string(member, byte, out)?,
            (State::PassingOver { depth, string }, _) => pass_over(depth, string, byte),
            (state, b' ' | b'\t' | b'\n' | b'\r') => state,
            (State::BeforeObject, b'{') => State::BeforeKey { first: true },
            (State::BeforeKey { .. }, b'"') => {
                self.text.clear();
                State::InKey
            }
            (State::BeforeKey { first: true } | State::AfterValue, b'}') => State::AfterObject,
            (State::AfterKey, b':') => State::BeforeValue(self.member()?),
            (State::BeforeValue(member @ (Member::Kept | Member::Other)), byte) => {
                self.keeping = member == Member::Kept;
                begin_passing_over(byte)?
            }
            (State::BeforeValue(member), b'"') => {
                self.text.clear();
                State::InString(member)
            }
            (State::AfterValue, b',') => State::BeforeKey { first: false },
            _ => return Err(NOT_THE_JSON),
        };
        self.keep(byte);
        // A number or word ends with what follows it.
        if let State::PassingOver { depth: 0, string: Quoted::No } = self.state
            && matches!(byte, b',' | b'}')
        {
            self.state =
                if byte == b',' { State::BeforeKey { first: false } } else { State::AfterObject };
            if std::mem::take(&mut self.keeping) {
                self.kept.as_mut().and_then(Vec::pop);
            }
        }
        Ok(())
    }

    /// Keeps a byte of the member that is handed on.
    fn keep(&mut self, byte: u8) {
        if self.keeping {
            self.kept.get_or_insert_default().push(byte);
            self.keeping = matches!(self.state, State::PassingOver { .. });
        }
    }

    /// Says which member the key names; each may come once.
    fn member(&mut self) -> Result<Member, CallError> {
        let (member, seen) = match self.text.as_str() {
            key if key == self.keys.file => (Member::File, std::mem::replace(&mut self.file, true)),
            key if key == self.keys.name => {
                (Member::Name, self.name.replace(String::new()).is_some())
            }
            key if Some(key) == self.keys.kept => (Member::Kept, self.kept.is_some()),
            _ => (Member::Other, false),
        };
        if seen { Err(NOT_THE_JSON) } else { Ok(member) }
    }

    fn take_string(
        &mut self,
        member: Member,
        byte: u8,
        out: &mut Vec<u8>,
    ) -> Result<State, CallError> {
        match self.take_character(byte)? {
            Taken::Nothing => {}
            Taken::Character(character) if member == Member::File => {
                let mut utf_8 = [0; 4];
                self.take_base64(character.encode_utf8(&mut utf_8).as_bytes(), out)?;
            }
            Taken::Character(character) => self.text.push(character),
            Taken::End => {
                if member == Member::File && !self.unit.is_empty() {
                    return Err(self.not_base64());
                }
                if member == Member::Name {
                    self.name = Some(std::mem::take(&mut self.text));
                }
                return Ok(State::AfterValue);
            }
        }
        Ok(State::InString(member))
    }

    /// Takes a byte inside a string. Nothing that has a meaning here is outside ASCII: what is
    /// becomes a character that no key and no name has.
    fn take_character(&mut self, byte: u8) -> Result<Taken, CallError> {
        let Some(escape) = &mut self.escape else {
            return match byte {
                b'"' => Ok(Taken::End),
                b'\\' => {
                    self.escape = Some(Vec::new());
                    Ok(Taken::Nothing)
                }
                0..=0x1f => Err(NOT_THE_JSON),
                byte => Ok(Taken::Character(ascii(u32::from(byte)))),
            };
        };
        escape.push(byte);
        let character = match escape.as_slice() {
            [b'u'] | [b'u', _] | [b'u', _, _] | [b'u', _, _, _] => return Ok(Taken::Nothing),
            [b'u', digits @ ..] => {
                let digits = std::str::from_utf8(digits).map_err(|_| NOT_THE_JSON)?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(NOT_THE_JSON);
                }
                ascii(u32::from_str_radix(digits, 16).map_err(|_| NOT_THE_JSON)?)
            }
            [byte @ (b'"' | b'\\' | b'/')] => char::from(*byte),
            [b'b' | b'f' | b'n' | b'r' | b't'] => FOREIGN,
            _ => return Err(NOT_THE_JSON),
        };
        self.escape = None;
        Ok(Taken::Character(character))
    }

    fn take_base64(&mut self, mut text: &[u8], out: &mut Vec<u8>) -> Result<(), CallError> {
        if !self.unit.is_empty() {
            let (first, rest) = text.split_at(text.len().min(UNIT - self.unit.len()));
            self.unit.extend_from_slice(first);
            text = rest;
            if self.unit.len() < UNIT {
                return Ok(());
            }
            let unit = std::mem::take(&mut self.unit);
            self.decode(&unit, out)?;
        }
        let (whole, rest) = text.split_at(text.len() / UNIT * UNIT);
        self.decode(whole, out)?;
        self.unit.extend_from_slice(rest);
        Ok(())
    }

    fn decode(&mut self, units: &[u8], out: &mut Vec<u8>) -> Result<(), CallError> {
        if units.is_empty() {
            return Ok(());
        }
        // Nothing follows the padding.
        if self.padded {
            return Err(self.not_base64());
        }
        self.padded = units.ends_with(b"=");
        STANDARD.decode_vec(units, out).map_err(|_| self.not_base64())
    }

    fn not_base64(&self) -> CallError {
        CallError::UnexpectedReply { what: self.keys.not_base64 }
    }
}

/// What a byte inside a string means.
enum Taken {
    Character(char),
    End,
    Nothing,
}

fn ascii(code: u32) -> char {
    char::from_u32(code).filter(char::is_ascii).unwrap_or(FOREIGN)
}

fn begin_passing_over(byte: u8) -> Result<State, CallError> {
    match byte {
        b'"' => Ok(State::PassingOver { depth: 0, string: Quoted::Yes }),
        b'[' | b'{' => Ok(State::PassingOver { depth: 1, string: Quoted::No }),
        b'-' | b'0'..=b'9' | b'a'..=b'z' => Ok(State::PassingOver { depth: 0, string: Quoted::No }),
        _ => Err(NOT_THE_JSON),
    }
}

/// Passes over a byte of a value that means nothing here; its inside is not checked.
fn pass_over(depth: usize, string: Quoted, byte: u8) -> State {
    let state = |depth, string| State::PassingOver { depth, string };
    match (string, byte) {
        (Quoted::Yes, b'\\') => state(depth, Quoted::Escaped),
        (Quoted::Yes, b'"') if depth == 0 => State::AfterValue,
        (Quoted::Yes, b'"') => state(depth, Quoted::No),
        (Quoted::Yes | Quoted::Escaped, _) | (Quoted::No, b'"') => state(depth, Quoted::Yes),
        (Quoted::No, b'[' | b'{') => state(depth + 1, Quoted::No),
        (Quoted::No, b']' | b'}') if depth == 1 => State::AfterValue,
        (Quoted::No, b']' | b'}') => state(depth.saturating_sub(1), Quoted::No),
        (Quoted::No, _) => state(depth, Quoted::No),
    }
}

/// Stands for every character that no key, name or base64 has.
const FOREIGN: char = '\u{fffd}';
const UNIT: usize = 4;
const NOT_THE_JSON: CallError =
    CallError::UnexpectedReply { what: "it is not the JSON that this call answers with" };

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &[u8], piece: usize) -> Result<(String, Vec<u8>), CallError> {
        let (mut decoder, mut out) = (ReplyDecoder::new(Keys::MANIFEST), Vec::new());
        for piece in json.chunks(piece) {
            decoder.push(piece, &mut out)?;
        }
        Ok((decoder.finish()?.name, out))
    }

    /// Decodes in pieces of every length, which must make no difference.
    fn decoded(json: &str) -> Option<Vec<u8>> {
        let whole = decode(json.as_bytes(), json.len().max(1));
        for piece in 1..json.len().min(40) {
            let pieces = decode(json.as_bytes(), piece);
            assert_eq!(pieces.as_ref().ok(), whole.as_ref().ok(), "{piece}: {json}");
        }
        whole.ok().map(|(name, bytes)| {
            assert_eq!(name, "manifest.b");
            bytes
        })
    }

    #[test]
    fn whatever_serde_reads_is_read_alike() {
        let bytes: Vec<u8> = (0..=255).collect();
        let base64 = STANDARD.encode(&bytes);
        let slashes = base64.replace('/', "\\/").replace('+', "\\u002B");
        for text in [&base64, &slashes] {
            for json in [
                format!(r#"{{"encoded_manifest":"{text}","manifest_name":"manifest.b"}}"#),
                format!(
                    r#" {{ "manifest_name" : "manifest.b" , "encoded_manifest" : "{text}" }} "#
                ),
                format!(
                    r#"{{"a":-1.5e3,"b":null,"c":[1,{{"d":"]}}\""}}],"e":"\\","\u006danifest_name":"manifest\u002eb","f":{{}},"encoded_manifest":"{text}","ü":"\ud83e\udd80","g":true}}"#
                ),
            ] {
                serde_json::from_str::<sbs_proto::ManifestReply>(&json).unwrap();
                assert_eq!(decoded(&json).as_deref(), Some(&*bytes), "{json}");
            }
        }
        let empty = r#"{"encoded_manifest":"","manifest_name":"manifest.b"}"#;
        assert_eq!(decoded(empty).as_deref(), Some(&[][..]));
    }

    #[test]
    fn every_length_of_padding_is_read() {
        for length in 0..20 {
            let bytes = vec![0xfb; length];
            let text = STANDARD.encode(&bytes);
            let json = format!(r#"{{"encoded_manifest":"{text}","manifest_name":"manifest.b"}}"#);
            assert_eq!(decoded(&json), Some(bytes));
        }
    }

    #[test]
    fn other_json_is_refused() {
        for json in [
            "",
            "[]",
            "\"\"",
            "{}",
            "{,}",
            r#"{"encoded_manifest":"QUJD"}"#,
            r#"{"manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QUJD","manifest_name":"manifest.b""#,
            r#"{"encoded_manifest":"QUJD","manifest_name":"manifest.b",}"#,
            r#"{"encoded_manifest":"QUJD" "manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QUJD","manifest_name":"manifest.b"}}"#,
            r#"{"encoded_manifest":"QUJD","manifest_name":"manifest.b"}x"#,
            r#"{"encoded_manifest":1,"manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":["QUJD"],"manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QUJD","manifest_name":null}"#,
            r#"{"encoded_manifest":"QUJD","encoded_manifest":"QUJD","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QUJD","manifest_name":"manifest.b","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QUJ","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QQ==QQ==","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QQ==QUJD","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"Q=JD","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QU D","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QUJD\n","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QUJ\u00","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QU\x4A","manifest_name":"manifest.b"}"#,
            r#"{"encoded_manifest":"QU-_","manifest_name":"manifest.b"}"#,
            "{\"encoded_manifest\":\"QUJD\n\",\"manifest_name\":\"manifest.b\"}",
            r#"{"encoded_manifest":"QUJD","manifest_name":"manifest.b","x":}"#,
        ] {
            assert_eq!(decoded(json), None, "{json}");
        }
    }

    /// The tag of a state image has any type; each stands at the end and in the middle.
    #[test]
    fn a_member_is_handed_on_as_it_came() {
        for tag in
            ["\"sbs-seal-1\"", "\"}\\\",\"", "7", "-1.5e3", "null", "[1,\"]\"]", "{\"a\":{}}"]
        {
            let expected: Value = serde_json::from_str(tag).unwrap();
            for json in [
                format!("{{\"export_tag\":{tag},\"name\":\"n\",\"state\":\"QUJD\"}}"),
                format!("{{\"name\":\"n\",\"state\":\"QUJD\", \"export_tag\" : {tag} }}"),
                format!("{{\"name\":\"n\",\"state\":\"QUJD\",\"export_tag\":{tag}}}"),
            ] {
                for piece in 1..json.len() {
                    let (mut decoder, mut out) = (ReplyDecoder::new(Keys::STATE), Vec::new());
                    json.as_bytes().chunks(piece).for_each(|piece| {
                        decoder.push(piece, &mut out).unwrap();
                    });
                    let decoded = decoder.finish().unwrap();
                    assert_eq!((decoded.kept.as_ref(), &*out), (Some(&expected), &b"ABC"[..]));
                    assert_eq!(decoded.name, "n", "{json}");
                }
            }
        }
        for json in [
            r#"{"name":"n","state":"QUJD","export_tag":nonsense}"#,
            r#"{"name":"n","state":"QUJD","export_tag":1,"export_tag":2}"#,
            r#"{"name":"n","export_tag":"t"}"#,
        ] {
            let (mut decoder, mut out) = (ReplyDecoder::new(Keys::STATE), Vec::new());
            let pushed = decoder.push(json.as_bytes(), &mut out);
            assert!(pushed.and_then(|()| decoder.finish()).is_err(), "{json}");
        }
    }

    #[test]
    fn c2_what_is_not_of_the_manifest_has_a_limit() {
        for start in ["", "{\"", "{\"a\":\"", "{\"a\":[", "{\"manifest_name\":\""] {
            let (mut decoder, mut out) = (ReplyDecoder::new(Keys::MANIFEST), Vec::new());
            decoder.push(start.as_bytes(), &mut out).unwrap();
            let filler = vec![b' '; usize::try_from(limits::REPLY_BYTES).unwrap()];
            let error = decoder.push(&filler, &mut out).and_then(|()| decoder.push(b" ", &mut out));
            assert!(matches!(error, Err(CallError::TooLarge { .. })), "{start}: {error:?}");
        }
    }
}
