//! Wycheproof's tests of the primitives, with the features and on the processor that we use.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use sbs_crypto::{hkdf_expand_sha256, hkdf_sha256, hmac_sha256};
use wycheproof::{TestResult, aead, hkdf, mac};

#[test]
fn aes_256_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let (mut good, mut bad) = (0, 0);
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let cipher = Aes256Gcm::new_from_slice(&test.key).unwrap();
            let nonce: &Nonce<_> = test.nonce[..].try_into().unwrap();
            let tag: &Tag = test.tag[..].try_into().unwrap();
            let mut buffer = test.ct.to_vec();
            let opened =
                cipher.decrypt_inout_detached(nonce, &test.aad, (&mut buffer[..]).into(), tag);
            if test.result == TestResult::Valid {
                opened.unwrap_or_else(|_| panic!("test {}", test.tc_id));
                assert_eq!(buffer, test.pt[..], "test {}", test.tc_id);
                let made = cipher
                    .encrypt_inout_detached(nonce, &test.aad, (&mut buffer[..]).into())
                    .unwrap();
                assert_eq!((&buffer[..], made), (&test.ct[..], *tag), "test {}", test.tc_id);
                good += 1;
            } else {
                assert!(opened.is_err(), "test {}", test.tc_id);
                assert_eq!(buffer, test.ct[..], "test {} gives plaintext", test.tc_id);
                bad += 1;
            }
        }
    }
    assert!(good > 20 && bad > 20, "{good} {bad}");
}

#[test]
fn hkdf_with_sha_256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut count = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        if test.size > LONGEST {
            // What we expand has a length that is checked when it is compiled.
            assert_eq!(test.result, TestResult::Invalid, "test {}", test.tc_id);
            continue;
        }
        assert_eq!(test.result, TestResult::Valid, "test {}", test.tc_id);
        // HKDF-Extract is HMAC with the salt as key; a shorter output is the start of a longer one.
        let prk = hmac_sha256(&test.salt, &test.ikm);
        let output = hkdf_expand_sha256::<LONGEST>(&prk, &[&test.info]);
        assert_eq!(output[..test.size], test.okm[..], "test {}", test.tc_id);
        let (start, _) = test.info.split_at(test.info.len() / 2);
        let parts = [start, &test.info[start.len()..]];
        assert_eq!(hkdf_expand_sha256::<LONGEST>(&prk, &parts), output, "test {}", test.tc_id);
        let at_once = hkdf_sha256(&test.salt, &test.ikm, &test.info);
        assert_eq!(at_once[..], output[..32], "test {}", test.tc_id);
        count += 1;
    }
    assert!(count > 50, "{count}");
}

#[test]
fn hmac_with_sha_256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let (mut good, mut bad) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let computed = hmac_sha256(&test.key, &test.msg);
        let same = computed[..test.tag.len()] == test.tag[..];
        assert_eq!(same, test.result == TestResult::Valid, "test {}", test.tc_id);
        if same { good += 1 } else { bad += 1 }
    }
    assert!(good > 50 && bad > 50, "{good} {bad}");
}

/// RFC 5869, 2.3.
const LONGEST: usize = 255 * 32;
