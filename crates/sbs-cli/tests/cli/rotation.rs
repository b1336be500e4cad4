//! The change of SECRET, with a server whose answers are lost, and runs that are killed.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::place::Place;
use crate::server::{BREAK, SILENCE, Served};

/// What happens to a change at the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It is made, and answered.
    Answered,
    /// It is not made, and the connection breaks.
    LostBefore,
    /// It is made, and the connection breaks.
    LostAfter,
    /// It is not made, and nothing comes.
    SilentBefore,
    /// It is made, and nothing comes.
    SilentAfter,
    /// It is made, and something answers that is no answer.
    Garbled,
    /// It is not made, because the server says no.
    Busy,
}

use Fate::{Answered, Busy, Garbled, LostAfter, LostBefore, SilentAfter, SilentBefore};

/// A server with a SECRET, as ours or as the original, which does not speak v2.
struct Server {
    fates: Arc<Mutex<Vec<Fate>>>,
    served: Served,
    secret: Arc<Mutex<String>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Original,
    Ours,
}

impl Server {
    /// The n-th change (a probe is one, too) has the n-th fate; after those all are answered.
    fn start(kind: Kind, fates: &[Fate]) -> Self {
        let secret = Arc::new(Mutex::new(String::new()));
        let fates = Arc::new(Mutex::new(fates.to_vec()));
        let (kept, next) = (secret.clone(), fates.clone());
        let served = Served::start(move |line, body| match line {
            "GET /v2/info" if kind == Kind::Ours => {
                let limits = json!({
                    "page_builds": 1, "request_body_bytes": 1, "v1_manifest_bytes": 1,
                });
                (200, json!({"api": 2, "server_version": "9", "limits": limits}).to_string())
            }
            "PATCH /image" => {
                let body: Value = serde_json::from_str(body).unwrap();
                let mut fates = next.lock().unwrap();
                let fate = if fates.is_empty() { Answered } else { fates.remove(0) };
                answer(&body, fate, &mut kept.lock().unwrap())
            }
            _ => (404, String::new()),
        });
        let server = Self { fates, served, secret };
        *server.secret.lock().unwrap() = server.config("SECRET");
        server
    }

    fn place(&self) -> &Place {
        &self.served.place
    }

    fn secret(&self) -> String {
        self.secret.lock().unwrap().clone()
    }

    /// A value of the configuration, empty where there is none.
    fn config(&self, key: &str) -> String {
        let config: Value = serde_json::from_str(&self.place().read("env.json")).unwrap();
        config[key].as_str().unwrap_or_default().to_owned()
    }

    /// Tells whether the user is not locked out: one of the two secrets is the server's.
    fn is_open(&self) -> bool {
        [self.config("SECRET"), self.config("PENDING_SECRET")].contains(&self.secret())
    }

    /// Tells whether the change is made and nothing of it is left to do.
    fn is_done(&self) -> bool {
        self.config("PENDING_SECRET").is_empty() && self.config("SECRET") == self.secret()
    }

    fn updates(&self) -> usize {
        self.served.asked().iter().filter(|line| *line == "PATCH /image").count()
    }
}

fn answer(body: &Value, fate: Fate, secret: &mut String) -> (u16, String) {
    if body["SECRET"] != **secret {
        return (403, json!({"status": "another SECRET", "code": "wrong_secret"}).to_string());
    }
    if matches!(fate, Answered | LostAfter | SilentAfter | Garbled)
        && let Some(new) = body["NEW_SECRET"].as_str()
    {
        new.clone_into(secret);
    }
    match fate {
        Answered => (200, json!({"status": "OK"}).to_string()),
        LostBefore | LostAfter => (BREAK, String::new()),
        SilentBefore | SilentAfter => (SILENCE, String::new()),
        Garbled => (200, "<html>".to_owned()),
        Busy => (409, json!({"status": "a build runs", "code": "busy"}).to_string()),
    }
}

#[test]
fn a_new_secret_is_sent_and_kept() {
    for kind in [Kind::Ours, Kind::Original] {
        let server = Server::start(kind, &[]);
        let old = server.secret();
        let run = server.place().good(&["update", "--new-secret"]);
        assert_eq!(run.stdout, "OK\n");
        assert!(server.is_done() && server.secret() != old, "{run:?}");
        assert_eq!(server.secret().len(), 172);
        assert_eq!(server.place().mode("env.json"), 0o600);
        let (_, body) = server.served.requests().pop().unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["SECRET"], &body["NEW_SECRET"]), (&old.into(), &server.secret().into()));
        // The old one is still to be had, for state images that need it.
        let names = server.place().names();
        let backups: Vec<_> = names.iter().filter(|name| name.starts_with("env.json.2")).collect();
        assert_eq!(backups.len(), 2, "{names:?}");
        for backup in backups {
            assert_eq!(server.place().mode(backup), 0o600);
        }
        assert!(!format!("{run:?}").contains(&server.secret()));
        // Another update is none of it.
        server.place().good(&["update"]);
        assert!(!server.served.requests().pop().unwrap().1.contains("NEW_SECRET"));
    }
}

#[test]
fn s19_a_lost_answer_locks_nobody_out() {
    let server = Server::start(Kind::Ours, &[]);
    for (fates, code, updates) in [
        // The answer is lost once: one run finds out.
        (&[LostBefore][..], 0, 3),
        (&[LostAfter], 0, 2),
        (&[Garbled], 0, 2),
        // That is lost, too.
        (&[LostAfter, LostBefore], 3, 2),
        (&[LostBefore, Answered], 0, 3),
        (&[LostBefore, LostAfter, LostAfter], 3, 3),
        (&[Busy], 1, 1),
        (&[LostBefore, Busy], 0, 3),
    ] {
        let before = server.updates();
        *server.fates.lock().unwrap() = fates.to_vec();
        let run = server.place().sbs(&["update", "--new-secret"]);
        assert!(server.is_open(), "{fates:?}: {run:?}");
        assert_eq!((run.code, server.updates() - before), (code, updates), "{fates:?}: {run:?}");
        if code == 0 {
            assert!(server.is_done(), "{fates:?}: {run:?}");
        } else {
            assert!(run.stderr.contains("PENDING_SECRET"), "{fates:?}: {run:?}");
            assert!(!server.config("PENDING_SECRET").is_empty());
        }
        // The next one ends it, and makes no third secret.
        let expected = if code == 0 { server.secret() } else { server.config("PENDING_SECRET") };
        server.place().good(&["update"]);
        assert!(server.is_done() && server.secret() == expected, "{fates:?}");
        assert!(server.fates.lock().unwrap().is_empty(), "{fates:?}");
        assert!(!format!("{run:?}").contains(&server.secret()));
    }
}

#[test]
fn s19_a_killed_run_locks_nobody_out() {
    for fate in [SilentBefore, SilentAfter] {
        let server = Server::start(Kind::Ours, &[fate]);
        let mut child = server
            .place()
            .command(env!("CARGO_BIN_EXE_sbs"))
            .args(["--env", "env.json", "update", "--new-secret"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while server.updates() == 0 {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(server.is_open() && !server.is_done(), "{fate:?}");
        // Other commands do not mind.
        let new = server.config("PENDING_SECRET");
        assert_eq!(server.place().sbs(&["status"]).code, 1);
        let run = server.place().good(&["update", "--new-secret"]);
        assert!(server.is_done() && server.secret() == new, "{fate:?}: {run:?}");
        assert!(run.stderr.contains("going on with the change of SECRET"), "{run:?}");
        let told = if fate == SilentAfter { "new secret already" } else { "old secret still" };
        assert!(run.stderr.contains(told), "{run:?}");
    }
}

/// A run that ends between the server's answer and the configuration leaves what one leaves whose
/// answer was lost; one that ends in the middle of a change of the configuration leaves what was
/// before or what comes after.
#[test]
fn s19_what_a_run_left_at_each_step_is_gone_on_with() {
    let new = "AQEB".repeat(42) + "AQE=";
    for applied in [false, true] {
        let server = Server::start(Kind::Ours, &[]);
        server.place().set("PENDING_SECRET", new.clone());
        if applied {
            server.secret.lock().unwrap().clone_from(&new);
        }
        server.place().good(&["update"]);
        assert!(server.is_done(), "{applied}");
        let expected = "AQEB".repeat(42) + "AQE=";
        assert_eq!(server.secret(), expected);
    }
}

/// Whether the original looks at SECRET in an ordinary update is not known: it is not asked that way.
#[test]
fn s19_the_original_is_sent_the_change_again() {
    let server = Server::start(Kind::Original, &[LostBefore]);
    let run = server.place().good(&["update", "--new-secret"]);
    assert!(server.is_done() && server.updates() == 2, "{run:?}");
    // It was made and the answer lost: the original says no, and both secrets stay where they are.
    let server = Server::start(Kind::Original, &[LostAfter]);
    let run = server.place().sbs(&["update", "--new-secret"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(server.is_open() && run.stderr.contains("PENDING_SECRET"), "{run:?}");
}

#[test]
fn a_pending_secret_that_is_none_is_refused_before_anything_is_sent() {
    let server = Server::start(Kind::Ours, &[]);
    server.place().set("PENDING_SECRET", "canary");
    let run = server.place().sbs(&["update"]);
    assert_eq!((run.code, server.updates()), (2, 0), "{run:?}");
    assert!(run.stderr.contains("PENDING_SECRET must be"), "{run:?}");
    assert!(!run.stderr.contains("canary"), "{run:?}");
}
