//! What the operator asks of a server that runs, on the machine itself.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::pki::{ServerRequest, describe};
use sbs_tests::{Authority, BareServer, Outcome, built, outcome, program, wait_until};
use serde_json::json;
use time::{Duration, OffsetDateTime};

#[test]
fn a_certificate_that_has_ended_is_replaced_through_the_socket() -> Result<()> {
    let authority = Authority::new("Client CA")?;
    let ended = authority.issue_with("Server", |parameters| {
        parameters.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        parameters.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    })?;
    let mut bare = BareServer::start_with(authority, Some(&ended), |_| String::new())?;
    // No client goes on, and the log says why.
    let error = bare.api(&bare.authority.pem)?.call("GET", "/image").unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
    assert!(bare.server.log_text().contains("of the server has ended"));

    let examined = doctor(&bare)?;
    assert_eq!(examined.code, 1, "{}", examined.text());
    assert!(examined.stdout.contains("fault    its certificate     ended on"), "{examined:?}");

    let told = run(&bare, &["show"])?;
    assert_eq!(told.code, 0, "{}", told.text());
    let digest = describe(&ended.certificate)?.sha256.to_string();
    assert!(told.stdout.contains(&digest) && told.stdout.contains("environment"), "{told:?}");
    let refused = run(&bare, &["csr", "a:443"])?;
    assert!(refused.code == 1 && refused.stderr.contains("neither a DNS name"), "{refused:?}");
    let file = bare.path("certificate.pem");
    let path = file.display().to_string();
    fs::write(&file, &ended.certificate)?;
    let refused = run(&bare, &["install", &path])?;
    assert!(refused.stderr.contains("no certificate was asked for"), "{refused:?}");

    let request = run(&bare, &["csr", "localhost"])?.stdout;
    // The key of the request can be compared on both sides.
    let key = ServerRequest::from_pem(&request)?.public_key_sha256().to_string();
    let told = run(&bare, &["show"])?.stdout;
    assert!(told.contains(&format!("localhost is awaited, for the key {key}\n")), "{told}");
    let other = Authority::new("Client CA")?;
    fs::write(&file, other.sign(&request, |_| {})?)?;
    let refused = run(&bare, &["install", &path])?;
    assert!(refused.stderr.contains("not signed by an authority"), "{refused:?}");
    let certificate = bare.authority.sign(&request, |_| {})?;
    fs::write(&file, &certificate)?;
    let told = run(&bare, &["install", &path])?;
    let digest = describe(&certificate)?.sha256.to_string();
    assert!(told.stdout.contains(&digest) && told.stdout.contains("installed"), "{told:?}");
    assert_eq!(bare.api(&bare.authority.pem)?.call("GET", "/image")?.status, 200);

    let examined = doctor(&bare)?;
    assert_eq!(examined.code, 0, "{}", examined.text());
    assert!(examined.stdout.contains("warning  its certificate     valid until"), "{examined:?}");
    assert!(examined.stdout.contains("ok       its authority       valid until"), "{examined:?}");

    bare.server.kill();
    let none = run(&bare, &["show"])?;
    assert!(none.code == 1 && none.stderr.contains("is it running"), "{none:?}");
    // What a crash left behind is no obstacle.
    bare.server.start_again()?;
    assert!(run(&bare, &["show"])?.stdout.contains(&digest));
    Ok(())
}

#[test]
fn t10_what_is_the_operators_is_closed_to_clients_and_to_other_users() -> Result<()> {
    let authority = Authority::new("Client CA")?;
    let given = authority.issue_loopback("Server")?;
    let bare = BareServer::start_with(authority, Some(&given), |_| String::new())?;
    let api = bare.api(&bare.authority.pem)?;
    // A client certificate is not enough to change keys: SECRET is wanted, and counted.
    let secret = |byte: u8| STANDARD.encode([byte; 128]);
    let definition = json!({
        "BUILD_IMAGE_TAG": "1", "DOCKER_PASSWORD": "p", "DOCKER_REPO": "ns/app", "DOCKER_USER": "u",
        "GITHUB_URL": "https://git.example/app.git", "RUNTIME_TYPE": "vpc", "SECRET": secret(1),
    });
    let initialised = api.send("POST", "/image", &definition.to_string())?;
    assert_eq!(initialised.status, 200, "{}", initialised.text());
    let route = "/v2/images/default/keys/image/rotation";
    for method in ["POST", "DELETE"] {
        for body in ["", "\"\"", "{}", "{\"SECRET\":\"\"}", "{\"SECRET\":1}"] {
            let refused = api.send(method, route, body)?;
            assert_eq!(refused.status, 400, "{method} {body}: {}", refused.text());
        }
        // It is the right one, and there are no keys yet.
        let right = json!({ "SECRET": secret(1) }).to_string();
        assert_eq!(api.send(method, route, &right)?.json()?["code"], "no_keys");
        let wrong = api.send(method, route, &json!({ "SECRET": secret(2) }).to_string())?;
        assert_eq!((wrong.status, &wrong.json()?["code"]), (403, &json!("wrong_secret")));
    }
    // What only an operator may do is not there at all.
    for path in ["/reset", "/reseal", "/v2/reset", "/v2/reseal", "/v2/root-secret", "/admin"] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            assert_eq!(api.call(method, path)?.status, 404, "{method} {path}");
        }
    }
    let socket = bare.server.data_directory().join("admin.sock");
    assert_eq!(socket.metadata()?.permissions().mode() & 0o777, 0o600);
    // Another user does not come in, even where all directories are open.
    let mut directory = Some(socket.as_path());
    while let Some(path) = directory.filter(|path| path.as_os_str() != "/tmp") {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        directory = path.parent();
    }
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'\"show\"\\n')\nprint(len(s.recv(9)))";
    let mut other = program("setpriv");
    other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "python3", "-c", script]);
    let told = outcome(other.arg(&socket))?;
    // It is closed before the request, behind it, or with it unread: each without an answer.
    assert!(["", "0"].contains(&told.stdout.trim()), "{told:?}");
    wait_until("the refusal", std::time::Duration::from_secs(10), || {
        Ok(bare.server.log_text().contains("another user").then_some(()))
    })?;
    // The operator's own program does not speak to a socket that others can exchange.
    let refused = run(&bare, &["show"])?;
    assert!(refused.code == 1 && refused.stderr.contains("written by others"), "{refused:?}");
    Ok(())
}

#[test]
fn what_is_no_request_is_refused_and_the_next_one_is_answered() -> Result<()> {
    let bare = BareServer::start()?;
    let socket = bare.server.data_directory().join("admin.sock");
    for request in
        ["\n", "x\n", "{}\n", "{\"csr\":{}}\n", "{\"csr\":{\"host\":\"h\",\"x\":1}}\n", "[[[["]
    {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(request.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert!(answer.starts_with("{\"refused\":"), "{request}: {answer}");
    }
    let mut stream = UnixStream::connect(&socket)?;
    // More than is read: the server may close before all is sent.
    let _cut = stream.write_all(&vec![b'x'; 1 << 20]);
    drop(stream);
    assert_eq!(run(&bare, &["show"])?.code, 0);

    // The root of one repository is forgotten, and nothing else.
    let forget =
        |server, repository| run_command(&bare, "notary-root", &["forget", server, repository]);
    let file = bare.server.data_directory().join("definitions/default/notary_roots.json");
    let said = |gun: &str| serde_json::json!({ "gun": gun, "root": "{}", "versions": {} });
    let roots = serde_json::json!({ "repositories": {
        "https://notary.example r.example/app": said("r.example/app"),
        "https://notary.example r.example/other": said("r.example/other"),
    }});
    fs::write(&file, roots.to_string())?;
    for (server, repository, reason) in [
        ("http://notary.example", "r.example/app", "over `https` only"),
        ("notary.example", "r.example/app:v1", "not a repository"),
        ("notary.example", "r.example/none", "nothing is remembered"),
    ] {
        let refused = forget(server, repository)?;
        assert!(refused.code == 1 && refused.stderr.contains(reason), "{refused:?}");
    }
    assert_eq!(fs::read_to_string(&file)?, roots.to_string());
    let told = forget("notary.example", "r.example/app")?;
    assert!(told.code == 0 && told.stdout.contains("is forgotten"), "{told:?}");
    let text = fs::read_to_string(&file)?;
    assert!(!text.contains("r.example/app") && text.contains("r.example/other"), "{text}");
    Ok(())
}

fn doctor(bare: &BareServer) -> Result<Outcome> {
    let mut command = program(built("sbs-server").context("the server")?);
    outcome(command.arg("doctor").arg("--config").arg(bare.path("server.toml")))
}

fn run(bare: &BareServer, arguments: &[&str]) -> Result<Outcome> {
    run_command(bare, "certificate", arguments)
}

fn run_command(bare: &BareServer, command: &str, arguments: &[&str]) -> Result<Outcome> {
    let config = bare.path("server.toml");
    let mut program = program(built("sbs-server").context("the server")?);
    program.arg(command).args(arguments).arg("--config").arg(config);
    outcome(&mut program)
}
