//! A transparency log of one leaf: the crate `sigstore-verify` takes no bundle without a log entry.
//!
//! docs of the forms: RFC 6962 (hashes of leaves), C2SP tlog-checkpoint and signed-note, and the
//! `hashedrekord` 0.0.2 of Rekor.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const ORIGIN: &str = "log.example";

pub struct Log(Ed25519KeyPair);

impl Log {
    pub fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    /// Returns what a verifier that trusts this log is given.
    pub fn trusted_root(&self) -> String {
        let id = STANDARD.encode(self.id());
        // RFC 8410: the prefix of every Ed25519 SubjectPublicKeyInfo.
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let spki = STANDARD.encode([&prefix, self.0.public_key().as_ref()].concat());
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot.v0.2+json",
            "tlogs": [{
                "baseUrl": format!("https://{ORIGIN}"),
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": spki,
                    "keyDetails": "PKIX_ED25519",
                    "validFor": { "start": "2024-01-01T00:00:00Z" },
                },
                "logId": { "keyId": id },
                "checkpointKeyId": { "keyId": id },
            }],
            "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": [],
        });
        root.to_string()
    }

    /// Puts the signature of a bundle into the log, and the entry into the bundle.
    pub fn enter(&self, bundle: &str, key_spki: &[u8]) -> String {
        let mut bundle: Value = serde_json::from_str(bundle).unwrap();
        let envelope = &bundle["dsseEnvelope"];
        let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let kind = envelope["payloadType"].as_str().unwrap();
        let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
        let digest = STANDARD.encode(hash(&[head.as_bytes(), &payload].concat()));
        let signature = envelope["signatures"][0]["sig"].as_str().unwrap();
        let spki = STANDARD.encode(key_spki);
        // RFC 8785: no white space, members in the order of their names.
        let body = format!(
            r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"data":{{"algorithm":"SHA2_256","digest":"{digest}"}},"signature":{{"content":"{signature}","verifier":{{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{{"rawBytes":"{spki}"}}}}}}}}}}}}"#
        );
        let root = STANDARD.encode(hash(&[&[0], body.as_bytes()].concat()));
        let note = format!("{ORIGIN}\n1\n{root}\n");
        let signed = self.0.sign(note.as_bytes());
        let signature = STANDARD.encode([&self.id()[..4], signed.as_ref()].concat());
        bundle["verificationMaterial"]["tlogEntries"] = json!([{
            "logIndex": "0",
            "logId": { "keyId": STANDARD.encode(self.id()) },
            "kindVersion": { "kind": "hashedrekord", "version": "0.0.2" },
            "integratedTime": "0",
            "inclusionProof": {
                "logIndex": "0", "rootHash": root, "treeSize": "1", "hashes": [],
                "checkpoint": { "envelope": format!("{note}\n\u{2014} {ORIGIN} {signature}\n") },
            },
            "canonicalizedBody": STANDARD.encode(body),
        }]);
        bundle.to_string()
    }

    fn id(&self) -> [u8; 32] {
        let named = [ORIGIN.as_bytes(), &[0x0a, 0x01], self.0.public_key().as_ref()].concat();
        hash(&named)
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *sbs_crypto::digest(bytes).as_bytes()
}
