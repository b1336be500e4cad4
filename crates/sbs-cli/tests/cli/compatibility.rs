//! `docs/compatibility.md` against the sources: what it says is tested, and nothing is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sbs_proto::key;

/// A row of a table: its cells.
type Row = Vec<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of all tables, without their heads; code that has a `|` in it is not supported.
fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/compatibility.md")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with('|')).collect::<Vec<_>>();
    let rule = |line: &&&str| line.starts_with("|---");
    let heads: BTreeSet<_> =
        lines.windows(2).filter(|pair| rule(&&pair[1])).map(|p| p[0]).collect();
    let cells =
        |line: &&str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    lines.iter().filter(|line| !rule(line) && !heads.contains(**line)).map(cells).collect()
}

/// What stands between backticks.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The names of all test functions of the workspace.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut directories = vec![root().join("crates"), root().join("tests")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // The judges are other programs, with their packages.
                if !path.ends_with("judges") && !path.ends_with("target") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(functions(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    names
}

/// The functions that have an attribute `test` above them.
fn functions(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
            found.extend(rest.split('(').next().map(str::to_owned));
            marked = false;
        }
    }
    found
}

#[test]
fn every_row_names_tests_that_exist() {
    let (rows, tests) = (rows(), tests());
    assert!(rows.len() > 100 && tests.len() > 500, "{} {}", rows.len(), tests.len());
    let mut faults = Vec::new();
    for row in &rows {
        let named = words(row.last().unwrap());
        if named.is_empty() {
            faults.push(format!("no test: {}", row[0]));
        }
        for name in named.iter().filter(|name| !tests.contains(**name)) {
            faults.push(format!("no such test: {name}"));
        }
        if row.len() < 3 || row.iter().any(String::is_empty) {
            faults.push(format!("an empty cell: {}", row[0]));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_command_flag_route_and_key_of_the_original_has_its_row() {
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| words(&row[0])).collect();
    let keys = key::REQUIRED.into_iter().chain(key::OPTIONAL).chain(key::IGNORED);
    // Ours, which the original does not know.
    let ours = |key: &&str| key.contains("_ACCESS_KEY") || key.ends_with("_REGION");
    let keys: Vec<&str> = keys.filter(|key| !ours(key)).collect();
    let wanted = COMMANDS.iter().chain(&FLAGS).chain(&ROUTES).chain(&KEYS).chain(&keys);
    let missing: Vec<_> = wanted.filter(|word| !named.contains(**word)).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
}

const COMMANDS: [&str; 25] = [
    "init",
    "update",
    "build",
    "clean",
    "status",
    "log",
    "get-config-json",
    "get-config-python",
    "get-manifest",
    "get-publickey",
    "get-signed-image-publickey",
    "get-dct-publickey",
    "get-digest",
    "get-state-image",
    "post-state-image",
    "create-client-cert",
    "create-server-cert",
    "delete-certificates",
    "instance-env",
    "get-server-csr",
    "sign-csr",
    "post-server-cert",
    "config_cipher.py encrypt",
    "config_cipher.py list-keys",
    "config_cipher.py delete-key",
];

const FLAGS: [&str; 29] = [
    "--env",
    "--verbose",
    "--version",
    "--loglevel",
    "--log",
    "--verify-manifest",
    "--verify-test",
    "--build-name",
    "--new-secret",
    "--state-image",
    "--state-bucket-name",
    "--name",
    "--secret",
    "--noverify",
    "--github-key-file",
    "--client-crt-key",
    "--container-name",
    "--capath",
    "--cakeypath",
    "--csrpath",
    "--certpath",
    "--cloud",
    "--key-id",
    "--email",
    "--isv-secrets",
    "--config-json-path",
    "--rd-path",
    "--help",
    "-v",
];

const ROUTES: [&str; 15] = [
    "GET /image",
    "POST /image",
    "PATCH /image",
    "PUT /image",
    "DELETE /image",
    "GET /log/{name}",
    "GET /config-json",
    "GET /config-python",
    "GET /manifest",
    "GET /publickey",
    "GET /imagedigest",
    "GET /state-image",
    "POST /state-image",
    "GET /csr/{host}",
    "POST /certificate",
];

/// Keys of the configuration that are not sent under their name.
const KEYS: [&str; 27] = [
    "HOSTNAME",
    "CICD_PORT",
    "UUID",
    "CONTAINER_NAME",
    "IMAGE_TAG",
    "GITHUB_KEY_FILE",
    "ICR_BASE_REPO_PUBLIC_KEY",
    "COS_API_KEY_ID",
    "COS_RESOURCE_CRN",
    "COS_ENDPOINT",
    "COS_AUTH_ENDPOINT",
    "CLIENT_CRT_KEY",
    "CAPATH",
    "CAKEYPATH",
    "CERTPATH",
    "CSRPATH",
    "ROOT_SSH_KEY_FILE",
    "CICD_PUBLIC_IP",
    "SSC_HOST",
    "NEW_SECRET",
    "KEY_ID",
    "EMAIL",
    "BUILD_NAME",
    "NAME",
    "STATE_IMAGE",
    "registration_file",
    "GITHUB_KEY",
];
