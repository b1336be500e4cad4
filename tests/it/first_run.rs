//! The commands of the README, run as they are written.

use anyhow::Result;
use sbs_tests::{built, outcome, program};

#[test]
fn a_stranger_has_a_verified_build_after_six_commands() -> Result<()> {
    let directory = tempfile::Builder::new().prefix("sbs-tests-").tempdir()?;
    let mut unshare = program("unshare");
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.args(["sh", "-euc", SCRIPT, "sh"]).arg(directory.path()).arg(built("first_run")?);
    let run = outcome(&mut unshare)?;
    assert_eq!(run.code, 0, "{}", run.text());
    Ok(())
}

/// Gives the program a network of its own, and copies of /etc and /var/lib that it may change.
const SCRIPT: &str = "\
ip link set lo up
mkdir \"$1/changes\" \"$1/data\"
mount -t tmpfs none \"$1/changes\"
for place in etc var/lib; do
    mkdir -p \"$1/changes/$place/upper\" \"$1/changes/$place/work\"
    mount -t overlay none /$place \\
        -o \"lowerdir=/$place,upperdir=$1/changes/$place/upper,workdir=$1/changes/$place/work\"
    rm -rf /$place/sbs
done
mkdir /var/lib/sbs
mount --bind \"$1/data\" /var/lib/sbs
exec \"$2\" \"$1\"";
