use super::*;

/// What a row of settings is read as, in one line.
fn read(purpose: StoragePurpose, rows: &[(&str, &str)]) -> Result<String, StorageKeyError> {
    let mut members = Members::default();
    for (key, value) in rows {
        members.insert(key, *value);
    }
    let (access, bucket) = match purpose {
        StoragePurpose::Manifest => match parse_manifest_storage(&members)? {
            None => return Ok("none".to_owned()),
            Some(target) => (target.access, Some(target.bucket)),
        },
        StoragePurpose::State => match parse_state_storage(&members)? {
            None => return Ok("none".to_owned()),
            Some(state) => (state.access, state.bucket),
        },
    };
    let who = match &access.credentials {
        StorageCredentials::AccessKey { id, secret } => format!("{id}:{}", secret.expose()),
        StorageCredentials::IbmApiKey { api_key, auth_endpoint, instance } => {
            let instance = instance.as_ref().map_or("-", SecretText::expose);
            format!("{}@{instance}@{}", api_key.expose(), auth_endpoint.as_str())
        }
    };
    let bucket = bucket.as_ref().map_or("-", BucketName::as_str);
    Ok(format!("{bucket} {} {} {who}", access.endpoint.as_str(), access.region))
}

fn error(key: &'static str, source: ParseStorageError) -> Result<String, StorageKeyError> {
    Err(StorageKeyError { key, source })
}

const ENDPOINT: (&str, &str) = ("COS_ENDPOINT", "https://s3.example");
const ID: (&str, &str) = ("COS_ACCESS_KEY_ID", "id");
const SECRET: (&str, &str) = ("COS_SECRET_ACCESS_KEY", "secret");
const API_KEY: (&str, &str) = ("COS_API_KEY_ID", "key");
const AUTH: (&str, &str) = ("COS_AUTH_ENDPOINT", "https://iam.example/oidc/token");
const CRN: (&str, &str) = ("COS_RESOURCE_CRN", "crn:v1:x");
const BUCKET: (&str, &str) = ("MANIFEST_BUCKET_NAME", "manifests");
const STATE_BUCKET: (&str, &str) = ("STATE_BUCKET_NAME", "states");

#[test]
fn manifest_keys_row_by_row() {
    use ParseStorageError::{AuthEndpoint, Missing, NoAccess, TwoAccesses, Value};
    let missing = Missing { bucket: "MANIFEST_BUCKET_NAME" };
    let rows: [(&[(&str, &str)], _); 19] = [
        (&[], Ok("none".to_owned())),
        // Without a bucket nothing is uploaded, whatever else is set.
        (&[ENDPOINT, ID, SECRET], Ok("none".to_owned())),
        (&[ENDPOINT], Ok("none".to_owned())),
        // The two ways to get in.
        (&[BUCKET, ENDPOINT, ID, SECRET], Ok("manifests https://s3.example us-east-1 id:secret".to_owned())),
        (
            &[BUCKET, ENDPOINT, API_KEY, AUTH, CRN],
            Ok("manifests https://s3.example us-east-1 key@crn:v1:x@https://iam.example/oidc/token".to_owned()),
        ),
        // A key of one's own comes before the shared one, each by itself.
        (
            &[BUCKET, ENDPOINT, ID, SECRET, ("MANIFEST_COS_ENDPOINT", "https://own.example:9000/"), ("MANIFEST_COS_REGION", "eu-de")],
            Ok("manifests https://own.example:9000 eu-de id:secret".to_owned()),
        ),
        (
            &[BUCKET, ENDPOINT, ID, SECRET, ("MANIFEST_COS_ENDPOINT", "")],
            Ok("manifests https://s3.example us-east-1 id:secret".to_owned()),
        ),
        // The other purpose's keys are not ours.
        (&[BUCKET, ("STATE_COS_ENDPOINT", "https://s3.example"), ID, SECRET], error("MANIFEST_COS_ENDPOINT", missing)),
        // Halves.
        (&[BUCKET], error("MANIFEST_COS_ENDPOINT", missing)),
        (&[BUCKET, ID, SECRET], error("MANIFEST_COS_ENDPOINT", missing)),
        (&[BUCKET, ENDPOINT], error("MANIFEST_COS_ACCESS_KEY_ID", NoAccess)),
        (&[BUCKET, ENDPOINT, ID], error("MANIFEST_COS_SECRET_ACCESS_KEY", missing)),
        (&[BUCKET, ENDPOINT, SECRET], error("MANIFEST_COS_ACCESS_KEY_ID", missing)),
        // Of IBM's own way only the key cannot be done without.
        (
            &[BUCKET, ENDPOINT, API_KEY, AUTH],
            Ok("manifests https://s3.example us-east-1 key@-@https://iam.example/oidc/token".to_owned()),
        ),
        (
            &[BUCKET, ENDPOINT, API_KEY, ("COS_RESOURCE_CRN", "")],
            Ok("manifests https://s3.example us-east-1 key@-@https://iam.cloud.ibm.com/oidc/token".to_owned()),
        ),
        (&[BUCKET, API_KEY], error("MANIFEST_COS_ENDPOINT", missing)),
        (&[BUCKET, ENDPOINT, API_KEY, ("COS_AUTH_ENDPOINT", "iam")], error("MANIFEST_COS_AUTH_ENDPOINT", AuthEndpoint)),
        (&[BUCKET, ENDPOINT, AUTH, CRN], error("MANIFEST_COS_API_KEY_ID", missing)),
        (&[BUCKET, ENDPOINT, API_KEY, AUTH, CRN, ID, SECRET], error("MANIFEST_COS_ACCESS_KEY_ID", TwoAccesses)),
    ];
    for (row, expected) in rows {
        assert_eq!(read(StoragePurpose::Manifest, row), expected, "{row:?}");
    }
    let split = [BUCKET, ENDPOINT, SECRET, ("COS_ACCESS_KEY_ID", "a\r\nb")];
    assert_eq!(read(StoragePurpose::Manifest, &split), error("MANIFEST_COS_ACCESS_KEY_ID", Value));
}

#[test]
fn state_keys_row_by_row() {
    use ParseStorageError::{Missing, NoAccess};
    let missing = Missing { bucket: "STATE_BUCKET_NAME" };
    let rows: [(&[(&str, &str)], _); 6] = [
        (&[], Ok("none".to_owned())),
        (&[BUCKET], Ok("none".to_owned())),
        (
            &[STATE_BUCKET, ENDPOINT, ID, SECRET],
            Ok("states https://s3.example us-east-1 id:secret".to_owned()),
        ),
        // The bucket may come with the request.
        (&[ENDPOINT, ID, SECRET], Ok("- https://s3.example us-east-1 id:secret".to_owned())),
        (&[STATE_BUCKET], error("STATE_COS_ENDPOINT", missing)),
        (&[ENDPOINT], error("STATE_COS_ACCESS_KEY_ID", NoAccess)),
    ];
    for (row, expected) in rows {
        assert_eq!(read(StoragePurpose::State, row), expected, "{row:?}");
    }
}

#[test]
fn only_names_of_buckets_are_taken() {
    for good in ["abc", "a.b-c", "0ab", "manifests-2026", &"a".repeat(63)] {
        BucketName::parse(good).unwrap();
    }
    for bad in [
        "",
        "ab",
        "Abc",
        "a_b",
        "-abc",
        "abc-",
        ".abc",
        "abc.",
        "a..b",
        "a.-b",
        "a/b",
        "../a",
        "192.168.0.1",
        "a b",
        "abc\n",
        "äbc",
        &"a".repeat(64),
    ] {
        assert_eq!(BucketName::parse(bad), Err(ParseStorageError::Bucket), "{bad}");
        if !bad.is_empty() {
            let rows = [("MANIFEST_BUCKET_NAME", bad), ENDPOINT, ID, SECRET];
            let expected = error("MANIFEST_BUCKET_NAME", ParseStorageError::Bucket);
            assert_eq!(read(StoragePurpose::Manifest, &rows), expected, "{bad}");
        }
    }
}

#[test]
fn an_endpoint_is_a_scheme_and_a_host() {
    for (text, expected) in [
        ("https://s3.example", Some("https://s3.example")),
        ("https://s3.example/", Some("https://s3.example")),
        ("https://[::1]:9000", Some("https://[::1]:9000")),
        ("http://s3.example", Some("http://s3.example")),
        ("https://user@s3.example", None),
        ("https://user:pass@s3.example", None),
        ("https://s3.example/bucket", None),
        ("https://s3.example?x=1", None),
        ("https://s3.example#x", None),
        ("https:\\\\s3.example", None),
        ("https://s3 example", None),
        ("https://", None),
        ("ftp://s3.example", None),
        ("file:///etc/passwd", None),
        ("s3.example", None),
        ("s3.example:443", None),
    ] {
        let rows = [("COS_ENDPOINT", text), BUCKET, ID, SECRET];
        let expected = match expected {
            Some(url) => Ok(format!("manifests {url} us-east-1 id:secret")),
            None if text.contains(' ') => error("MANIFEST_COS_ENDPOINT", ParseStorageError::Value),
            None => error("MANIFEST_COS_ENDPOINT", ParseStorageError::Endpoint),
        };
        assert_eq!(read(StoragePurpose::Manifest, &rows), expected, "{text}");
    }
}

#[test]
fn l1_http_is_refused_unless_it_is_allowed() {
    for (endpoint, auth, expected) in [
        ("https://s3.example", "https://iam.example/t", None),
        ("http://s3.example", "https://iam.example/t", Some("STATE_COS_ENDPOINT")),
        ("https://s3.example", "http://iam.example/t", Some("STATE_COS_AUTH_ENDPOINT")),
    ] {
        let mut members = Members::default();
        let rows = [("COS_ENDPOINT", endpoint), ("COS_AUTH_ENDPOINT", auth), API_KEY, CRN];
        for (key, value) in rows {
            members.insert(key, value);
        }
        let state = parse_state_storage(&members).unwrap().unwrap();
        let refused = state.access.require_https(StoragePurpose::State).err();
        assert_eq!(refused.as_ref().map(|error| error.key), expected, "{endpoint} {auth}");
    }
}

#[test]
fn l1_neither_debug_nor_errors_show_a_key() {
    let canary = "canary-77aa";
    let rows =
        [ENDPOINT, AUTH, STATE_BUCKET, ("COS_API_KEY_ID", canary), ("COS_RESOURCE_CRN", canary)];
    let mut members = Members::default();
    for (key, value) in rows {
        members.insert(key, value);
    }
    let shown = format!("{:?}", parse_state_storage(&members).unwrap());
    assert!(shown.contains("s3.example") && !shown.contains(canary), "{shown}");
    for key in ["COS_API_KEY_ID", "COS_ENDPOINT", "COS_RESOURCE_CRN", "STATE_BUCKET_NAME"] {
        for bad in [Value::from(format!("{canary} \n")), serde_json::json!([canary])] {
            let mut members = members.clone();
            members.insert(key, bad);
            let error = parse_state_storage(&members).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(canary), "{error}");
        }
    }
}
