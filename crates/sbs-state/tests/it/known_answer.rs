use crate::common::{SALT, client, export, open_bytes, seal_bytes, server};

/// Frozen: files of this version must open for ever. Root secret 32 x 01, SECRET 128 x 02, salt
/// 24 x 03; computed by `tests/data/read_state.py`'s key schedule, too.
const FILE: &str = concat!(
    "5342532d5345414c000100010000000ceb882f9c37b35bc1000000000000000500000000000000090000000000000001",
    "7b226e616d65223a2278227d",
    "030303030303030303030303030303030303030303030303",
    "4e88420b3334bed73773db236b4d8005ec93881e34827ec904bb2b063b494fa9",
    "af404c70f460288b956fd5352b403f16b771e85d45",
);

#[test]
fn seals_the_known_answer() {
    assert_eq!(hex::encode(server(1).kid()), "eb882f9c37b35bc1");
    assert_eq!(
        *client(2).expose_hex(),
        hex::encode(sbs_crypto::hmac_sha256(b"sbs.state/v1 client share", &[2; 128]).as_slice())
    );
    assert_eq!(SALT, [3; 24]);
    assert_eq!(hex::encode(seal_bytes(export(), b"hello")), FILE);
}

#[test]
fn opens_the_known_answer() {
    let (content, result) = open_bytes(&hex::decode(FILE).unwrap());
    result.unwrap();
    assert_eq!(content, b"hello");
}

#[test]
fn the_document_tells_it() {
    let document: String = include_str!("../../../../docs/formats/state.md")
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    assert!(document.contains(FILE));
}
