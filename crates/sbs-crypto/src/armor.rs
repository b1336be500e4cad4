//! PEM text (RFC 7468), in and out, with a limit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Encodes `der` as one PEM block; the text is wiped when dropped, for it may be a private key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    // The whole room at once: a string that grows leaves copies of a secret behind.
    let lines = der.len().div_ceil(LINE_BYTES);
    let mut text = Zeroizing::new(String::with_capacity(lines * 65 + 2 * (label.len() + 20)));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(LINE_BYTES) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Returns the label and the bytes of each PEM block in `text`, or `None` if it is over the limit
/// or is not PEM.
pub(crate) fn decode(text: &str) -> Option<Vec<Block>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let blocks = pem::parse_many(text).ok()?;
    let blocks: Vec<_> = blocks
        .into_iter()
        .map(|block| Block { label: block.tag().to_owned(), der: block.into_contents().into() })
        .collect();
    // The parser stops without an error at the first block that it does not understand.
    (!blocks.is_empty() && text.matches("-----BEGIN").count() == blocks.len()).then_some(blocks)
}

/// Returns the bytes of the one block in `text`, which must have this label.
pub(crate) fn decode_one(label: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    match <[Block; 1]>::try_from(decode(text)?) {
        Ok([block]) if block.label == label => Some(block.der),
        _ => None,
    }
}

/// One PEM block.
pub(crate) struct Block {
    /// What stands behind `BEGIN`.
    pub(crate) label: String,
    /// The decoded bytes, which may be a private key.
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// The longest text taken, in bytes: a chain of a dozen certificates, or one huge key.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

// 48 bytes are 64 characters of base64, the line length of RFC 7468.
const LINE_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_it_encodes() {
        for length in [0, 1, 47, 48, 49, 1000] {
            let der: Vec<u8> = (0..length).map(|n: u16| n.to_le_bytes()[0]).collect();
            let text = encode("PRIVATE KEY", &der);
            assert_eq!(decode_one("PRIVATE KEY", &text).unwrap().as_slice(), der, "{length}");
            assert!(text.lines().all(|line| line.len() <= 64));
            // Room was made once, so no copy was left behind.
            assert!(text.capacity() < text.len() + 128);
        }
    }

    #[test]
    fn refuses_other_labels_and_numbers_of_blocks() {
        let one = encode("PUBLIC KEY", b"x");
        assert!(decode_one("CERTIFICATE", &one).is_none());
        assert!(decode_one("PUBLIC KEY", &format!("{}{}", *one, *one)).is_none());
        assert!(decode_one("PUBLIC KEY", "").is_none());
        assert!(decode_one("PUBLIC KEY", &one.replace("END", "EMD")).is_none());
        assert!(decode(&format!("{}{}", *one, one.replace("END", "EMD"))).is_none());
    }

    #[test]
    fn takes_text_up_to_the_limit() {
        let block = encode("PUBLIC KEY", b"x");
        let fitting = " ".repeat(MAX_BYTES - block.len()) + &block;
        assert!(decode_one("PUBLIC KEY", &fitting).is_some());
        assert!(decode_one("PUBLIC KEY", &(" ".to_owned() + &fitting)).is_none());
    }
}
