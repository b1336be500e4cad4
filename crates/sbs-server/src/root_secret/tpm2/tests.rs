//! Against swtpm, with tpm2-tools as the second opinion.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sbs_state::RootSecretProvider as _;
use tss_esapi::structures::Public;
use tss_esapi::traits::UnMarshall as _;

use super::*;
use crate::build::failure::chain;
use crate::root_secret::tests::{Subject, conforms, run, secret_file};
use crate::root_secret::{RootSecretSettings, init as init_provider, open as open_provider};

/// A software TPM of its own, with its state in a directory.
struct SoftwareTpm {
    directory: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl SoftwareTpm {
    fn start() -> Self {
        let mut tpm = Self { directory: tempfile::tempdir().unwrap(), port: 0, process: None };
        tpm.power_on();
        tpm
    }

    /// Starts the TPM as a reset of the machine does: PCRs begin anew, the rest is kept.
    fn power_on(&mut self) {
        // Somebody else may take a port before swtpm does.
        assert!((0..10).any(|_| self.try_power_on()), "swtpm does not start");
    }

    fn try_power_on(&mut self) -> bool {
        self.port = two_free_ports();
        let state = self.path("state");
        fs::create_dir_all(&state).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a program of the tests, not of the server")]
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={}", state.display()));
        for (option, port) in [("--server", self.port), ("--ctrl", self.port + 1)] {
            command.arg(option).arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"));
        }
        let process = command.stdout(Stdio::null()).spawn().expect("swtpm is installed");
        self.process = Some(process);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + 1)).is_err() {
            if self.process.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn power_off(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Empties the TPM, as a new one in its place would be.
    fn replace(&mut self) {
        self.power_off();
        fs::remove_dir_all(self.path("state")).unwrap();
        self.power_on();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tcti(&self) -> String {
        tcti(self.port)
    }

    /// Runs one of tpm2-tools.
    fn tool(&self, words: &[&str]) -> String {
        tool(&self.tcti(), words)
    }

    /// Puts a PCR to the value that a boot would, from wherever it was.
    fn boot(&self, pcr: u8, digit: &str) {
        self.tool(&["tpm2_pcrreset", &pcr.to_string()]);
        self.tool(&["tpm2_pcrextend", &format!("{pcr}:sha256={}", digit.repeat(64))]);
    }

    fn subject(&self) -> Subject {
        let mut settings =
            RootSecretSettings { provider: Provider::Tpm2, ..RootSecretSettings::default() };
        settings.tpm2.file = self.path("root-secret.tpm2");
        settings.tpm2.tcti = self.tcti();
        // Those that software can reset.
        settings.tpm2.pcrs = vec![16, 23];
        let store = settings.tpm2.file.clone();
        Subject { settings, credentials: None, store, portability: Portability::ThisImage }
    }

    /// A subject whose secret counts from `first`, sealed to what is booted.
    fn sealed(&self, first: u8) -> Subject {
        let subject = self.subject();
        self.boot(16, "1");
        self.boot(23, "2");
        let secret = secret_file(self.path("secret"), first);
        init_provider(&subject.settings, Some(&secret), None).unwrap();
        subject
    }

    fn open_error(&self) -> String {
        chain(&open_provider(&self.subject().settings, None).unwrap_err())
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn tcti(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

fn tool(tcti: &str, words: &[&str]) -> String {
    let (name, arguments) = words.split_first().unwrap();
    let output = run(name, arguments, &[("TPM2TOOLS_TCTI", tcti)]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The second port is for control: libtss2 looks for it there.
fn two_free_ports() -> u16 {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return port;
        }
    }
}

#[test]
fn a_tpm_conforms() {
    let (known, other) = (SoftwareTpm::start(), SoftwareTpm::start());
    conforms(&known.sealed(0), &other.sealed(1));
}

#[test]
fn k2_another_tpm_does_not_give_the_secret() {
    let (one, other) = (SoftwareTpm::start(), SoftwareTpm::start());
    let copied = one.sealed(0);
    other.sealed(1);
    fs::copy(&copied.store, other.path("root-secret.tpm2")).unwrap();
    let error = other.open_error();
    assert!(error.contains("another TPM sealed it, or this one was cleared"), "{error}");
    assert!(error.contains("no backup of root secret"), "{error}");
}

#[test]
fn k3_another_boot_does_not_give_the_secret_and_the_same_does() {
    let tpm = SoftwareTpm::start();
    let subject = tpm.sealed(0);
    let open = || open_provider(&subject.settings, None);
    let kid = open().unwrap().current_kid();
    tpm.tool(&["tpm2_pcrextend", &format!("23:sha256={}", "3".repeat(64))]);
    let error = tpm.open_error();
    assert!(error.contains("started other software (PCR 23 differs)"), "{error}");
    tpm.boot(23, "2");
    assert_eq!(open().unwrap().current_kid(), kid);
    // A PCR that was not chosen may change.
    tpm.tool(&["tpm2_pcrextend", &format!("4:sha256={}", "3".repeat(64))]);
    assert_eq!(open().unwrap().current_kid(), kid);
}

#[test]
fn k3_only_the_policy_opens_the_object() {
    let tpm = SoftwareTpm::start();
    tpm.sealed(0);
    let record = Record::load(&tpm.path("root-secret.tpm2")).unwrap();
    let public = Public::unmarshall(&record.sealed.public).unwrap();
    assert!(!public.object_attributes().user_with_auth());
    assert!(public.object_attributes().fixed_tpm());
    assert_eq!(public.auth_policy().value().len(), 32);
}

#[test]
fn k4_a_pcr_that_nothing_is_measured_into_is_refused() {
    let tpm = SoftwareTpm::start();
    let mut subject = tpm.subject();
    // A fresh swtpm: 0 to 16 are all zero, 17 to 22 all ones.
    for (pcrs, expected) in [
        (vec![4, 7, 11], "PCR 4 has nothing measured into it (all zero bits)"),
        (vec![17], "PCR 17 has nothing measured into it (all one bits)"),
        (vec![], "1 to 24 PCRs"),
        (vec![4, 4], "1 to 24 PCRs"),
        (vec![24], "1 to 24 PCRs"),
        (vec![255], "1 to 24 PCRs"),
    ] {
        subject.settings.tpm2.pcrs = pcrs;
        let error = chain(&init_provider(&subject.settings, None, None).unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(!subject.store.exists());
    }
    // One that is measured does not make up for one that is not.
    tpm.boot(16, "1");
    subject.settings.tpm2.pcrs = vec![16, 23];
    let error = chain(&init_provider(&subject.settings, None, None).unwrap_err());
    assert!(error.contains("PCR 23 has nothing"), "{error}");
}

#[test]
fn k5_the_bus_does_not_show_the_secret() {
    let tpm = SoftwareTpm::start();
    let bus = Bus::before(tpm.port);
    let secret: Vec<u8> = (0..32).collect();

    // What the check finds where nobody encrypts: it can fail.
    let (file, context) = (secret_file(tpm.path("plain"), 0), tpm.path("context"));
    let (file, context) = (file.to_str().unwrap(), context.to_str().unwrap());
    tool(&bus.tcti(), &["tpm2_createprimary", "-Q", "-c", context]);
    tool(&bus.tcti(), &["tpm2_create", "-Q", "-C", context, "-i", file]);
    assert!(bus.saw(&secret));
    // swtpm has no resource manager that would do it.
    tool(&bus.tcti(), &["tpm2_flushcontext", "-t"]);
    bus.forget();

    let mut subject = tpm.subject();
    subject.settings.tpm2.tcti = bus.tcti();
    tpm.boot(16, "1");
    tpm.boot(23, "2");
    init_provider(&subject.settings, Some(file.as_ref()), None).unwrap();
    let ring = open_provider(&subject.settings, None).unwrap();
    assert_eq!(ring.current_kid(), KeyId::of(&RootSecret::parse(&secret).unwrap()).unwrap());
    let record = Record::load(&subject.store).unwrap();
    assert!(bus.saw(&record.sealed.public), "the bus was listened to");
    assert!(!bus.saw(&secret));
    assert!(!bus.saw(&secret[..8]));
}

#[test]
fn the_counter_only_goes_up() {
    let mut tpm = SoftwareTpm::start();
    let subject = tpm.sealed(0);
    let held = open(&subject.settings.tpm2).unwrap();
    let counter = held.counter().unwrap();
    let start = counter.value().unwrap();
    assert_eq!(counter.increment().unwrap(), start + 1);
    assert_eq!(counter.increment().unwrap(), start + 2);
    assert_eq!(counter.value().unwrap(), start + 2);

    // Power that goes away takes nothing from it.
    tpm.power_off();
    tpm.power_on();
    tpm.boot(16, "1");
    tpm.boot(23, "2");
    let held = open(&tpm.subject().settings.tpm2).unwrap();
    let counter = held.counter().unwrap();
    assert_eq!(counter.value().unwrap(), start + 2);
    let index = format!("{:#x}", subject.settings.tpm2.counter_index);
    let value = tpm.path("value");
    tpm.tool(&["tpm2_nvread", &index, "-C", &index, "-o", value.to_str().unwrap()]);
    assert_eq!(fs::read(value).unwrap(), (start + 2).to_be_bytes());

    // Sealing again does not begin it again, and neither does making it anew.
    fs::remove_file(&subject.store).unwrap();
    tpm.sealed(1);
    assert_eq!(counter.value().unwrap(), start + 2);
    tpm.tool(&["tpm2_nvundefine", &index]);
    let error = counter.value().unwrap_err();
    assert!(chain(&error).contains("was it cleared?"), "{}", chain(&error));
    fs::remove_file(&subject.store).unwrap();
    tpm.sealed(0);
    assert!(counter.value().unwrap() > start + 2);
}

#[test]
fn an_index_of_something_else_is_left_alone() {
    let tpm = SoftwareTpm::start();
    let subject = tpm.subject();
    let index = format!("{:#x}", subject.settings.tpm2.counter_index);
    tpm.tool(&["tpm2_nvdefine", "-Q", &index, "-s", "8"]);
    tpm.boot(16, "1");
    tpm.boot(23, "2");
    let error = chain(&init_provider(&subject.settings, None, None).unwrap_err());
    assert!(error.contains("is taken by something else"), "{error}");
    assert!(!subject.store.exists());
}

#[test]
fn a_cleared_tpm_is_told_with_the_backup_that_brings_the_secret_back() {
    let mut tpm = SoftwareTpm::start();
    tpm.boot(16, "1");
    tpm.boot(23, "2");
    let backup = tpm.path("backup");
    init_provider(&tpm.subject().settings, None, Some(&backup)).unwrap();
    let kid = open_provider(&tpm.subject().settings, None).unwrap().current_kid();

    tpm.replace();
    tpm.boot(16, "1");
    tpm.boot(23, "2");
    let error = tpm.open_error();
    let command = format!("`sbs-server root-secret init --from {}`", backup.display());
    assert!(error.contains("this one was cleared") && error.contains(&command), "{error}");
    assert!(error.contains(&kid.to_string()), "{error}");

    // And what it says works.
    let subject = tpm.subject();
    fs::rename(&subject.store, tpm.path("old")).unwrap();
    init_provider(&subject.settings, Some(&backup), None).unwrap();
    assert_eq!(open_provider(&subject.settings, None).unwrap().current_kid(), kid);
}

#[test]
fn a_damaged_record_and_a_silent_tpm_are_told() {
    let mut tpm = SoftwareTpm::start();
    let subject = tpm.sealed(0);
    let good = fs::read_to_string(&subject.store).unwrap();
    let kid = open_provider(&subject.settings, None).unwrap().current_kid().to_string();
    for bad in [
        String::new(),
        good.replace("\"schema\": 1", "\"schema\": 2"),
        good.replace(&kid, "0000000000000000"),
        good.replace("\"public\"", "\"publik\""),
    ] {
        fs::write(&subject.store, &bad).unwrap();
        let error = tpm.open_error();
        assert!(error.contains("is damaged, or not the file"), "{error}");
    }
    // A private area that was changed, the TPM notices.
    let mut record: Record = serde_json::from_str(&good).unwrap();
    *record.sealed.private.last_mut().unwrap() ^= 1;
    fs::write(&subject.store, record.to_bytes()).unwrap();
    let error = tpm.open_error();
    assert!(error.contains("another TPM sealed it"), "{error}");

    fs::write(&subject.store, good).unwrap();
    tpm.power_off();
    let error = tpm.open_error();
    assert!(error.contains(&format!("no TPM answers at `{}`", tpm.tcti())), "{error}");
}

/// The bus between the program and a TPM, with somebody who listens.
struct Bus {
    port: u16,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Bus {
    fn before(tpm: u16) -> Self {
        let port = two_free_ports();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for offset in 0..2 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).unwrap();
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, tpm + offset));
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                for one in listener.incoming() {
                    let (one, other) = (one.unwrap(), TcpStream::connect(to).unwrap());
                    let (one_too, other_too) =
                        (one.try_clone().unwrap(), other.try_clone().unwrap());
                    let (there, back) = (Arc::clone(&seen), Arc::clone(&seen));
                    thread::spawn(move || pass(one, other, &there));
                    thread::spawn(move || pass(other_too, one_too, &back));
                }
            });
        }
        Self { port, seen }
    }

    fn tcti(&self) -> String {
        tcti(self.port)
    }

    fn saw(&self, bytes: &[u8]) -> bool {
        self.seen.lock().unwrap().windows(bytes.len()).any(|window| window == bytes)
    }

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap();
        seen.lock().unwrap().extend_from_slice(bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _closed = to.shutdown(Shutdown::Both);
}
