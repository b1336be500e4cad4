use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use time::Duration;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    key: String,
}

/// A certificate and those behind it.
type Chain = Vec<CertificateDer<'static>>;

impl Authority {
    fn new(name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// An authority that this one has signed.
    fn below(&self, name: &str, serial: u64) -> Self {
        let (mut params, key) = (authority_params(name), KeyPair::generate().unwrap());
        params.serial_number = Some(serial.into());
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { der, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    fn client(&self, serial: u64) -> Chain {
        let mut params = params("Client");
        params.serial_number = Some(serial.into());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()]
    }

    fn list(&self, serials: &[u64]) -> RevocationList {
        list_of(&self.issuer, serials)
    }

    /// A list that is signed by this authority's key in the name of another one.
    fn list_as(&self, name: &str, serials: &[u64]) -> RevocationList {
        let key = KeyPair::from_pem(&self.key).unwrap();
        list_of(&Issuer::new(authority_params(name), key), serials)
    }
}

fn list_of(issuer: &Issuer<'static, KeyPair>, serials: &[u64]) -> RevocationList {
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: NOW - Duration::hours(1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: NOW - Duration::hours(1),
        next_update: NOW + Duration::days(1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = RevocationList::parse(params.signed_by(issuer).unwrap().der()).unwrap();
    assert_eq!(list.next_update(), Some(NOW + Duration::days(1)));
    list
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (NOW - Duration::days(1), NOW + Duration::days(9));
    params
}

fn clients(authorities: &[&Authority], lists: &[RevocationList]) -> Result<Clients, MakeTlsError> {
    let authorities: Vec<_> = authorities.iter().map(|authority| authority.der.clone()).collect();
    Clients::new(&authorities, lists, None)
}

/// Checks who is accepted, whatever the order of authorities and lists.
fn check(authorities: [&Authority; 2], lists: &[RevocationList], expected: &[(&Chain, bool)]) {
    let [one, other] = authorities;
    let backwards: Vec<_> = lists.iter().rev().cloned().collect();
    for authorities in [[one, other], [other, one]] {
        for lists in [lists, &backwards] {
            let clients = clients(&authorities, lists).unwrap();
            for (place, (chain, accepted)) in expected.iter().enumerate() {
                assert_eq!(clients.accept(chain, NOW), *accepted, "{place}");
            }
        }
    }
}

#[test]
fn t4_lists_of_two_authorities_of_one_name_are_told_apart() {
    let (old, new) = (Authority::new("Client CA"), Authority::new("Client CA"));
    let [one, two] = [old.client(1), old.client(2)];
    let [three, four] = [new.client(1), new.client(4)];
    let all = [&one, &two, &three, &four];
    let told = |accepted: [bool; 4]| all.into_iter().zip(accepted).collect::<Vec<_>>();
    check([&old, &new], &[], &told([true; 4]));
    check([&old, &new], &[old.list(&[1])], &told([false, true, true, true]));
    check([&old, &new], &[new.list(&[1])], &told([true, true, false, true]));
    let both = [old.list(&[1]), new.list(&[4])];
    check([&old, &new], &both, &told([false, true, true, false]));
    let clients = clients(&[&old, &new], &both).unwrap();
    let [first] = &one[..] else { panic!("one certificate") };
    let refused = clients.0.verify_client_cert(first, &[], unix_time(NOW)).unwrap_err();
    assert_eq!(refused, Error::InvalidCertificate(CertificateError::Revoked));
    assert_eq!(clients.0.root_hint_subjects().len(), 1);
}

#[test]
fn t4_every_list_of_an_authority_counts() {
    let (authority, other) = (Authority::new("Client CA"), Authority::new("Other CA"));
    let all = [1, 2, 3].map(|serial| authority.client(serial));
    let expected: Vec<_> = all.iter().zip([false, false, true]).collect();
    check([&authority, &other], &[authority.list(&[1]), authority.list(&[2])], &expected);
}

#[test]
fn t4_a_list_that_no_authority_signed_is_refused() {
    let (authority, stranger) = (Authority::new("Client CA"), Authority::new("Client CA"));
    let below = authority.below("Below", 7);
    for list in [
        stranger.list(&[1]),
        Authority::new("Stranger").list(&[1]),
        authority.list_as("Other", &[1]),
        below.list(&[1]),
    ] {
        let good = authority.list(&[]);
        let refused = clients(&[&authority], &[good, list.clone()]).unwrap_err();
        assert!(matches!(refused, MakeTlsError::ForeignList { .. }), "{refused}");
        assert!(refused.to_string().contains(list.issuer()), "{refused}");
    }
}

#[test]
fn t4_no_other_way_to_an_authority_brings_a_revoked_certificate_in() {
    let root = Authority::new("Client CA");
    let below = root.below("Below", 7);
    let [one, two] = [1, 2].map(|serial| {
        let mut chain = below.client(serial);
        chain.push(below.der.clone());
        chain
    });
    check([&root, &below], &[below.list(&[1])], &[(&one, false), (&two, true)]);
    check([&root, &below], &[root.list(&[7])], &[(&one, false), (&two, false)]);
    let alone = clients(&[&root], &[root.list(&[7])]).unwrap();
    assert!(!alone.accept(&one, NOW));
    assert!(clients(&[&root], &[root.list(&[])]).unwrap().accept(&one, NOW));
}

#[test]
fn who_stands_under_no_authority_or_has_ended_is_refused() {
    let (one, other) = (Authority::new("Client CA"), Authority::new("Client CA"));
    let stranger = Authority::new("Client CA").client(1);
    check([&one, &other], &[one.list(&[])], &[(&stranger, false), (&Vec::new(), false)]);
    let clients = clients(&[&one, &other], &[]).unwrap();
    let chain = other.client(1);
    assert!(clients.accept(&chain, NOW));
    assert!(!clients.accept(&chain, NOW + Duration::days(10)));
    let pinned = |digest| Clients::new(&[one.der.clone(), other.der.clone()], &[], Some(digest));
    let [first] = &chain[..] else { panic!("one certificate") };
    assert!(pinned(sbs_crypto::digest(first)).unwrap().accept(&chain, NOW));
    assert!(!pinned(sbs_crypto::digest(&one.der)).unwrap().accept(&chain, NOW));
}
