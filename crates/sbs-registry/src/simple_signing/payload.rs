//! What is signed.

use sbs_proto::{Digest, ImageReference, parse_json};
use serde_json::{Map, Value, json};
use thiserror::Error;
use time::OffsetDateTime;

/// What a signature says: this image has this name.
///
/// `docker-reference` is kept as text. What it stands for is judged against an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    reference: String,
    digest: Digest,
    optional: Map<String, Value>,
}

impl Claim {
    /// Makes the claim that the digest has this name.
    pub fn new(image: &ImageReference, digest: Digest, at: OffsetDateTime) -> Self {
        let mut optional = Map::new();
        optional.insert("creator".to_owned(), CREATOR.into());
        optional.insert("timestamp".to_owned(), at.unix_timestamp().into());
        Self { reference: image.to_string(), digest, optional }
    }

    /// Parses a payload as strictly as containers/image: no member of `critical` that is not known,
    /// none that is missing, none twice.
    pub fn parse(json: &[u8]) -> Result<Self, ParseClaimError> {
        let payload = parse_json(json).map_err(|_| ParseClaimError::NotJson)?;
        let [critical, optional] = members(payload, ["critical", "optional"])?;
        let [kind, image, identity] = members(critical, ["type", "image", "identity"])?;
        if kind != KIND {
            return Err(ParseClaimError::Kind);
        }
        let [digest] = members(image, ["docker-manifest-digest"])?;
        let digest = digest.as_str().and_then(|text| Digest::parse(text).ok());
        let digest = digest.ok_or(ParseClaimError::Member("docker-manifest-digest"))?;
        let [reference] = members(identity, ["docker-reference"])?;
        let Value::String(reference) = reference else {
            return Err(ParseClaimError::Member("docker-reference"));
        };
        let Value::Object(optional) = optional else {
            return Err(ParseClaimError::Member("optional"));
        };
        if optional.get("creator").is_some_and(|creator| !creator.is_string()) {
            return Err(ParseClaimError::Member("creator"));
        }
        if optional.get("timestamp").is_some_and(|timestamp| !timestamp.is_i64()) {
            return Err(ParseClaimError::Member("timestamp"));
        }
        Ok(Self { reference, digest, optional })
    }

    /// Returns the payload, member by member as containers/image writes it.
    pub fn to_json(&self) -> Vec<u8> {
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": self.reference },
                "image": { "docker-manifest-digest": self.digest },
                "type": KIND,
            },
            "optional": self.optional,
        });
        payload.to_string().into_bytes()
    }

    /// Returns the name, as it was signed.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Returns the digest that was signed.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns what else was signed: `creator`, `timestamp`, and what a signer chose to add.
    pub fn optional(&self) -> &Map<String, Value> {
        &self.optional
    }
}

/// Why a payload is not a claim about an image.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseClaimError {
    /// It is of another kind.
    #[error("what is signed is not of the type `{KIND}`")]
    Kind,

    /// A member is of another form.
    #[error("what is signed has a `{0}` of another form than containers/image gives")]
    Member(&'static str),

    /// An object has other members than it should.
    #[error("what is signed has members that are not known, or lacks one")]
    Members,

    /// It is not JSON without doubled keys.
    #[error("what is signed is not JSON, or has a key twice in an object")]
    NotJson,
}

/// Takes the members of an object that has these and no others.
fn members<const N: usize>(value: Value, names: [&str; N]) -> Result<[Value; N], ParseClaimError> {
    let Value::Object(mut object) = value else { return Err(ParseClaimError::Members) };
    let found = names.map(|name| object.remove(name).unwrap_or_default());
    // No member may be null, so a missing one needs no case of its own.
    if !object.is_empty() || found.contains(&Value::Null) {
        return Err(ParseClaimError::Members);
    }
    Ok(found)
}

const KIND: &str = "atomic container signature";
const CREATOR: &str = concat!("sbs ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn claim() -> Claim {
        let image = ImageReference::parse("us.icr.io/ns/app:v1").unwrap();
        Claim::new(&image, Digest::from_bytes([0xab; 32]), datetime!(2026-06-01 12:00 UTC))
    }

    #[test]
    fn a_claim_has_the_exact_form() {
        let hex = "ab".repeat(32);
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"us.icr.io/ns/app:v1"}},"image":{{"docker-manifest-digest":"sha256:{hex}"}},"type":"atomic container signature"}},"optional":{{"creator":"sbs {version}","timestamp":1780315200}}}}"#
        );
        assert_eq!(String::from_utf8(claim().to_json()).unwrap(), expected);
        assert_eq!(Claim::parse(expected.as_bytes()).unwrap(), claim());
        let hub = ImageReference::parse("busybox:1").unwrap();
        let claim = Claim::new(&hub, claim().digest(), datetime!(2026-06-01 12:00 UTC));
        assert_eq!(claim.reference(), "docker.io/library/busybox:1");
    }

    #[test]
    fn r8_other_forms_of_claims_are_refused() {
        let good = String::from_utf8(claim().to_json()).unwrap();
        Claim::parse(good.replace("\"timestamp\"", "\"x\":{\"y\":null},\"timestamp\"").as_bytes())
            .unwrap();
        for (from, to, expected) in [
            ("\"critical\":{", "\"critical\":{\"x\":1,", ParseClaimError::Members),
            ("\"optional\":", "\"Optional\":", ParseClaimError::Members),
            ("\"optional\":", "\"x\":1,\"optional\":", ParseClaimError::Members),
            ("\"identity\":", "\"Identity\":", ParseClaimError::Members),
            ("\"docker-reference\":", "\"x\":1,\"docker-reference\":", ParseClaimError::Members),
            ("\"us.icr.io/ns/app:v1\"", "null", ParseClaimError::Members),
            ("\"us.icr.io/ns/app:v1\"", "1", ParseClaimError::Member("docker-reference")),
            ("sha256:", "sha512:", ParseClaimError::Member("docker-manifest-digest")),
            ("sha256:ab", "sha256:AB", ParseClaimError::Member("docker-manifest-digest")),
            ("atomic", "cosign", ParseClaimError::Kind),
            ("\"sbs ", "1,\"x\":\"", ParseClaimError::Member("creator")),
            ("1780315200", "1.5", ParseClaimError::Member("timestamp")),
            ("1780315200", "null", ParseClaimError::Member("timestamp")),
            ("\"timestamp\"", "\"creator\":\"x\",\"timestamp\"", ParseClaimError::NotJson),
            ("\"type\":", "\"type\":\"x\",\"type\":", ParseClaimError::NotJson),
            ("}}}", "}}", ParseClaimError::NotJson),
        ] {
            let bad = good.replacen(from, to, 1);
            let bad = if from == "}}}" { good.clone() + "x" } else { bad };
            assert_eq!(Claim::parse(bad.as_bytes()).unwrap_err(), expected, "{bad}");
        }
        let null = good.split("\"optional\"").next().unwrap().to_owned() + "\"optional\":null}";
        assert_eq!(Claim::parse(null.as_bytes()).unwrap_err(), ParseClaimError::Members);
        for bad in ["", "[]", "{}", "null", "[{},{}]"] {
            Claim::parse(bad.as_bytes()).unwrap_err();
        }
    }
}
