//! The process that holds the secrets is closed.

use std::fs;

use anyhow::{Context as _, Result};
use sbs_tests::World;
use serde_json::{Value, json};

#[test]
fn the_memory_of_a_running_server_is_not_dumped_and_not_swapped() -> Result<()> {
    let world = World::start()?;
    let process = world.server.process_id().context("the server runs")?;
    let limits = fs::read_to_string(format!("/proc/{process}/limits"))?;
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<_> = core.context("a limit of core files")?.split_whitespace().collect();
    assert_eq!(core, ["0", "0", "bytes"]);

    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).context("a field of the status")
    };
    let capabilities = u64::from_str_radix(field("CapEff:")?, 16)?;
    let locked: u64 = field("VmLck:")?.parse()?;
    // CAP_IPC_LOCK is the capability 14; where a container lacks it, nothing can be locked.
    let may_lock = capabilities & (1 << 14) != 0;
    assert_eq!(locked > 0, may_lock, "{status}");

    let log = world.server.log_text();
    assert!(log.contains("for development") && log.contains("provider=\"file\""), "{log}");
    Ok(())
}

#[test]
fn k8_a_root_secret_for_development_is_told_to_clients() -> Result<()> {
    let world = World::start()?;
    let told = world.sbs.run(&["--format", "json", "info"])?;
    assert_eq!(told.code, 0, "{}", told.text());
    assert!(told.stderr.contains("as for development (file)"), "{}", told.stderr);
    let info: Value = serde_json::from_str(&told.stdout)?;
    let expected = json!({ "provider": "file", "development": true });
    assert_eq!(info["root_secret"], expected, "{info}");
    assert_eq!(world.api()?.call("GET", "/v2/info")?.json()?["root_secret"], expected);
    Ok(())
}
