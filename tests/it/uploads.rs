//! State images that no client would send: too large, too slow, or not what they say. They cost the
//! server next to nothing, and who comes after them is served.

use std::io::{ErrorKind, Read as _, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_tests::{Parts, TlsStream, World, wait_until};
use serde_json::json;

#[test]
fn s14_endless_uploads_are_cut_and_cost_little_memory() -> Result<()> {
    let world = World::start()?;
    let before = world.server.memory("VmHWM")?;
    // What has no end: a state image in both forms, the line before a part of a form, a short part.
    let v1 = format!("{{\"secret\":\"{}\",\"state\":\"", STANDARD.encode([7; 128]));
    let endless = [
        (V1, v1.into_bytes()),
        (V2, form_up_to_the_state()),
        (V2, format!("--{BOUNDARY}\r\nContent-Disposition: ").into_bytes()),
    ];
    for (route, begin) in &endless {
        let (status, sent) = Upload::endless(&world, *route, begin)?;
        assert_eq!(status, 413, "{route:?}");
        assert!(sent < 64 * MIB, "{sent} bytes were taken");
    }
    let (status, sent) = Upload::endless(&world, V2, form_up_to_a_short_part().as_bytes())?;
    assert_eq!(status, 400);
    assert!(sent < 64 * MIB, "{sent} bytes were taken");

    // Many at once: one at a time is read.
    let outcomes = thread::scope(|scope| {
        let uploads = endless.each_ref().map(|(route, begin)| {
            let world = &world;
            scope.spawn(move || Upload::endless(world, *route, begin))
        });
        uploads.map(|upload| upload.join().expect("no panic"))
    });
    for outcome in outcomes {
        let (status, sent) = outcome?;
        assert!([409, 413].contains(&status) && sent < 64 * MIB, "{status}: {sent}");
    }

    let after = world.server.memory("VmHWM")?;
    assert!(after - before < MEMORY, "from {before} to {after} bytes");
    assert_eq!(world.api()?.call("GET", "/image")?.status, 200);
    Ok(())
}

#[test]
fn s14_headers_that_promise_much_cost_what_they_have() -> Result<()> {
    let world = World::start()?;
    let api = world.api()?;
    let before = world.server.memory("VmHWM")?;
    // The magic number, version, suite, and the length of the texts: 4 GiB.
    let mut promise = b"SBS-SEAL\0\x01\0\x01".to_vec();
    promise.extend_from_slice(&[0xff; 36]);
    let largest = |start: &[u8]| [start, &vec![0; 11 * (1 << 20) - start.len()]].concat();
    for state in [promise.clone(), largest(&promise), largest(b"")] {
        let told = if state.starts_with(b"SBS") { "too_large" } else { "bad_magic" };
        let secret = STANDARD.encode([7; 128]);
        let body = json!({ "secret": secret, "state": STANDARD.encode(&state) }).to_string();
        let form = [&form_up_to_the_state()[..], &state, b"\r\n--", BOUNDARY.as_bytes(), b"--\r\n"];
        for (route, body) in [(V1, body.as_bytes()), (V2, &form.concat())] {
            let reply = api.send_bytes(route.path, route.content_type, body)?;
            assert_eq!(reply.json()?["code"], told, "{route:?}: {}", reply.text());
            assert!([413, 422].contains(&reply.status), "{}", reply.status);
        }
    }
    let after = world.server.memory("VmHWM")?;
    assert!(after - before < MEMORY, "from {before} to {after} bytes");
    Ok(())
}

#[test]
fn s14_an_upload_that_trickles_is_cut_and_the_next_one_is_read() -> Result<()> {
    let parts = Parts::start()?;
    let settings = World::settings(&parts, "network = \"none\"\n")?;
    let world = World::start_on(parts, settings + "[state]\nreceive-limit-seconds = 1\n")?;
    let before = world.server.memory("VmHWM")?;
    for (route, begin) in [(V1, b"{\"secret\":\"".to_vec()), (V2, form_up_to_the_state())] {
        let mut upload = Upload::begin(&world, route)?;
        assert!(upload.send(&begin)?);
        // Bytes go on coming, so that no limit on silence ends it.
        wait_until("the end of an upload that trickles", PATIENCE, || {
            Ok((!upload.send(b"A")? || upload.has_answer()?).then_some(()))
        })?;
        assert!(upload.sent > begin.len() as u64 + 2, "nothing trickled");
        assert_eq!(upload.status()?, 408, "{route:?}");
        let reply = world.api()?.send_bytes(route.path, route.content_type, b"")?;
        assert_eq!((reply.status, &reply.json()?["code"]), (400, &json!("invalid_request")));
    }
    assert!(world.server.memory("VmHWM")? - before < MEMORY);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Route {
    path: &'static str,
    content_type: &'static str,
}

/// A request whose body says nowhere how long it is.
struct Upload {
    stream: TlsStream,
    sent: u64,
}

impl Upload {
    fn begin(world: &World, route: Route) -> Result<Self> {
        let mut stream = world.connect()?;
        stream.sock.set_read_timeout(Some(PATIENCE))?;
        stream.sock.set_write_timeout(Some(PATIENCE))?;
        let Route { path, content_type } = route;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )?;
        Ok(Self { stream, sent: 0 })
    }

    /// Sends a body of 4 GiB, or as much of it as the server takes; returns the status, and how many
    /// bytes went away.
    fn endless(world: &World, route: Route, begin: &[u8]) -> Result<(u16, u64)> {
        let mut upload = Self::begin(world, route)?;
        let piece = vec![b'A'; 1 << 20];
        let mut open = upload.send(begin)?;
        while open && upload.sent < 4 << 30 {
            open = upload.send(&piece)?;
        }
        let sent = upload.sent;
        Ok((upload.status()?, sent))
    }

    /// Sends a piece of the body; tells whether the server still takes it.
    fn send(&mut self, piece: &[u8]) -> Result<bool> {
        if piece.is_empty() {
            return Ok(true);
        }
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        match self.stream.write_all(&chunk) {
            Ok(()) => {
                self.sent += piece.len() as u64;
                Ok(true)
            }
            Err(error)
                if [
                    ErrorKind::BrokenPipe,
                    ErrorKind::ConnectionReset,
                    ErrorKind::ConnectionAborted,
                ]
                .contains(&error.kind()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).context("the server neither takes the body nor refuses it"),
        }
    }

    /// Tells whether an answer, or the end, has come.
    fn has_answer(&self) -> Result<bool> {
        self.stream.sock.set_nonblocking(true)?;
        let peeked = self.stream.sock.peek(&mut [0]);
        self.stream.sock.set_nonblocking(false)?;
        Ok(!peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
    }

    /// Reads the status of the answer, which may have come while the body was sent.
    fn status(&mut self) -> Result<u16> {
        let TlsStream { conn, sock } = &mut self.stream;
        let mut answer = Vec::new();
        while answer.len() < STATUS_LINE {
            // Not by the stream's own `read`, which first writes what the server does not take.
            let count = conn.read_tls(sock).context("there is no answer")?;
            ensure!(count > 0, "there is no answer");
            conn.process_new_packets()?;
            let mut piece = [0; 256];
            match conn.reader().read(&mut piece) {
                Ok(count) => answer.extend_from_slice(piece.get(..count).context("a piece")?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        status.and_then(|status| status.parse().ok()).with_context(|| format!("no HTTP: {head}"))
    }
}

fn form_up_to_a_short_part() -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"secret\"\r\n\r\n")
}

fn form_up_to_the_state() -> Vec<u8> {
    let (begin, secret) = (form_up_to_a_short_part(), STANDARD.encode([7; 128]));
    format!(
        "{begin}{secret}\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"state\"\r\n\r\n"
    )
    .into_bytes()
}

const BOUNDARY: &str = "a-boundary-of-the-tests";
/// `HTTP/1.1 200 `
const STATUS_LINE: usize = 13;
/// What all of this may add to the most memory that the server ever held: an upload or two of the
/// largest size with what is made of them, and what the allocator keeps for each thread.
const MEMORY: u64 = 96 * MIB;
const MIB: u64 = 1 << 20;
/// Only for a server that hangs: nothing here takes as long.
const PATIENCE: Duration = Duration::from_mins(1);
const V1: Route = Route { path: "/state-image", content_type: "application/json" };
const V2: Route = Route {
    path: "/v2/state",
    content_type: "multipart/form-data; boundary=a-boundary-of-the-tests",
};
