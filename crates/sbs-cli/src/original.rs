//! Command lines as the original's client takes them.
//!
//! That client has one set of flags for all commands, takes them before the command too, and takes
//! any beginning of a flag that no other one has (Python's `argparse`). Here flags belong to commands,
//! so that a command line is put in order before it is parsed.

use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::args::Args;
use crate::error::{CommandError, Kind};

/// A command line in our order, with what should be said about it.
#[derive(Debug)]
pub(crate) struct Translated {
    pub(crate) notes: Vec<String>,
    pub(crate) words: Vec<OsString>,
}

/// Puts a command line in our order. What it does not know it leaves to the parser.
pub(crate) fn translate(
    words: impl IntoIterator<Item = OsString>,
) -> Result<Translated, CommandError> {
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_default();
    let mut notes = Vec::new();
    let mut before: Vec<OsString> = Vec::new();
    let mut flags: Vec<OsString> = Vec::new();
    let mut command: Option<String> = None;
    let mut rest: Vec<OsString> = Vec::new();
    let known = Known::new();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str().filter(|text| *text != "--") else {
            rest.push(word);
            rest.extend(words);
            break;
        };
        let Some(flag) = Flag::of(text, &known) else {
            if command.is_none() && known.commands.iter().any(|known| known == text) {
                command = Some(text.to_owned());
            } else if command.is_none() && !text.starts_with('-') {
                // Not a command: the parser says so.
                before.push(word);
            } else {
                rest.push(word);
            }
            continue;
        };
        if flag.name == "secret" {
            return Err(refuse_secret());
        }
        let mut parts = vec![OsString::from(flag.text())];
        if flag.takes_value && flag.value.is_none() {
            parts.extend(words.next());
        }
        if INERT.contains(&flag.name.as_str()) {
            notes.push(format!("--{} has no effect", flag.name));
        } else if command.is_some() {
            rest.extend(parts);
        } else if known.global.contains(&flag.name) {
            before.extend(parts);
        } else {
            flags.extend(parts);
        }
    }
    let command = command.unwrap_or_default();
    let mut later = [flags, rest].concat();
    refuse_noverify(&command, &later)?;
    if command == "instance-env" {
        later = [before, later].concat();
        before = Vec::new();
        name_layouts(&mut later);
    }
    let mut translated = vec![program];
    translated.extend(before);
    if !command.is_empty() {
        translated.push(command.into());
    }
    translated.extend(later);
    Ok(Translated { notes, words: translated })
}

/// A long flag, with its whole name.
struct Flag {
    name: String,
    takes_value: bool,
    value: Option<String>,
}

/// What our own parser knows.
struct Known {
    commands: Vec<String>,
    /// The names of flags that may stand before the command.
    global: Vec<String>,
    /// The names of all flags, and whether they take a value.
    flags: Vec<(String, bool)>,
}

impl Flag {
    /// Reads a word as a flag of ours, or as a flag of the original or the beginning of one.
    fn of(text: &str, known: &Known) -> Option<Self> {
        let text = text.strip_prefix("--")?;
        let (given, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let flag = |(name, takes_value): (&str, bool)| Self {
            name: name.to_owned(),
            takes_value,
            value: value.clone(),
        };
        let exact = |flags: &[(&'static str, bool)]| flags.iter().copied().find(|f| f.0 == given);
        if let Some((name, takes_value)) = known.flags.iter().find(|(name, _)| name == given) {
            return Some(flag((name, *takes_value)));
        }
        if let Some(found) = exact(&FLAGS) {
            return Some(flag(found));
        }
        let mut found = FLAGS.iter().copied().filter(|(name, _)| name.starts_with(given));
        match (found.next(), found.next()) {
            (Some(one), None) => Some(flag(one)),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

impl Known {
    fn new() -> Self {
        let command = Args::command();
        let flag = |argument: &clap::Arg| {
            Some((argument.get_long()?.to_owned(), argument.get_action().takes_values()))
        };
        let mut flags: Vec<_> = command.get_arguments().filter_map(flag).collect();
        let global = flags.iter().map(|(name, _)| name.clone()).collect();
        let mut commands = Vec::new();
        for command in command.get_subcommands() {
            commands.extend(command.get_name_and_visible_aliases().into_iter().map(str::to_owned));
            commands.extend(command.get_all_aliases().map(str::to_owned));
            flags.extend(command.get_arguments().filter_map(flag));
        }
        Self { commands, global, flags }
    }
}

/// Whoever can list the processes of this machine reads their command lines.
fn refuse_secret() -> CommandError {
    let text = "--secret would show the secret to every user of this machine; it is not taken";
    CommandError::new(Kind::Usage, text).hint("put it into the configuration, as SECRET")
}

fn refuse_noverify(command: &str, words: &[OsString]) -> Result<(), CommandError> {
    let given = words.iter().take_while(|word| *word != "--").any(|word| word == "--noverify");
    if !given || command.is_empty() || UNVERIFIED.contains(&command) {
        return Ok(());
    }
    let text = format!(
        "--noverify is for {} alone: {command} sends or brings what needs a server that is known",
        UNVERIFIED.join(", ")
    );
    Err(CommandError::new(Kind::Usage, text)
        .hint("give the server a certificate first: get-server-csr, sign-csr, post-server-cert"))
}

/// Gives `--format` the name that it has where a form of variables is meant.
fn name_layouts(words: &mut [OsString]) {
    let is_layout = |word: &str| LAYOUTS.contains(&word);
    for index in 0..words.len() {
        let next = words.get(index + 1).and_then(|word| word.to_str()).map(is_layout);
        let Some(word) = words.get_mut(index) else { return };
        let renamed = match word.to_str() {
            Some("--format") if next == Some(true) => Some("--layout".to_owned()),
            Some(text) => text
                .strip_prefix("--format=")
                .filter(|value| is_layout(value))
                .map(|value| format!("--layout={value}")),
            None => None,
        };
        if let Some(renamed) = renamed {
            *word = renamed.into();
        }
    }
}

/// The original's flags, and whether they take a value.
const FLAGS: [(&str, bool); 28] = [
    ("build-name", true),
    ("cakeypath", true),
    ("capath", true),
    ("certpath", true),
    ("client-crt-key", true),
    ("cloud", false),
    ("config-json-path", true),
    ("container-name", true),
    ("csrpath", true),
    ("email", true),
    ("env", true),
    ("github-key-file", true),
    ("help", false),
    ("isv-secrets", false),
    ("key-id", true),
    ("log", true),
    ("loglevel", true),
    ("name", true),
    ("new-secret", false),
    ("noverify", false),
    ("rd-path", true),
    ("secret", true),
    ("state-bucket-name", true),
    ("state-image", true),
    ("verbose", false),
    ("verify-manifest", false),
    ("verify-test", false),
    ("version", false),
];

/// Flags that the original takes and does not use.
const INERT: [&str; 3] = ["cloud", "config-json-path", "rd-path"];

/// The commands that may be used before the server has a certificate of ours.
const UNVERIFIED: [&str; 3] = ["status", "get-server-csr", "post-server-cert"];

/// What `--format` of `instance-env` may be besides the forms that every command has.
const LAYOUTS: [&str; 4] = ["classic", "contract", "env", "systemd"];

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let words = format!("sbs {line}");
        let words = words.split(' ').map(OsString::from);
        let words = translate(words).unwrap().words;
        let words: Vec<_> = words[1..].iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn flags_before_the_command_go_behind_it() {
        for (line, expected) in [
            ("--env f status", "--env f status"),
            ("status --env f", "status --env f"),
            ("--log build --env f log", "--env f log --log build"),
            ("--build-name=n -v get-manifest --thin", "get-manifest --build-name=n -v --thin"),
            ("--env status update --new-secret", "--env status update --new-secret"),
            (
                "--name n --state-image f post-state-image",
                "post-state-image --name n --state-image f",
            ),
            ("--nonsense status", "status --nonsense"),
            ("nonsense --log x", "nonsense --log x"),
            ("--version", "--version"),
            ("", ""),
            ("verify -- --secret", "verify -- --secret"),
        ] {
            assert_eq!(translated(line), expected, "{line}");
        }
    }

    #[test]
    fn the_beginning_of_a_flag_is_enough_where_one_begins_so() {
        for (line, expected) in [
            ("--build n get-manifest", "get-manifest --build-name n"),
            ("get-manifest --build n", "get-manifest --build-name n"),
            ("update --new", "update --new-secret"),
            ("get-manifest --verify-m", "get-manifest --verify-manifest"),
            ("status --nov", "status --noverify"),
            // More than one flag begins so, or it is one of ours.
            ("get-manifest --verify", "get-manifest --verify"),
            ("status --n", "status --n"),
            ("build --wait", "build --wait"),
        ] {
            assert_eq!(translated(line), expected, "{line}");
        }
    }

    #[test]
    fn flags_without_effect_are_passed_over_and_named() {
        let words =
            ["sbs", "--cloud", "--rd-path", "a", "status", "--config-json-path=b", "--cloud"];
        let translated = translate(words.map(OsString::from)).unwrap();
        assert_eq!(translated.words, ["sbs", "status"]);
        assert_eq!(translated.notes.len(), 4);
        assert_eq!(translated.notes[1], "--rd-path has no effect");
    }

    #[test]
    fn l1_a_secret_on_the_command_line_is_refused_and_not_repeated() {
        for line in ["--secret canary init", "init --secret=canary", "init --sec canary"] {
            let words = format!("sbs {line}");
            let error = translate(words.split(' ').map(OsString::from)).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn t1_noverify_is_for_the_calls_that_send_no_secret() {
        for (line, good) in [
            ("status --noverify", true),
            ("--noverify get-server-csr", true),
            ("post-server-cert --nov", true),
            ("init --noverify", false),
            ("--nov update", false),
            ("post-state-image --noverify", false),
            ("get-manifest --noverify", false),
        ] {
            let words = format!("sbs {line}");
            let translated = translate(words.split(' ').map(OsString::from));
            assert_eq!(translated.is_ok(), good, "{line}");
        }
    }

    #[test]
    fn a_form_of_variables_is_a_layout() {
        for (line, expected) in [
            ("instance-env --format env", "instance-env --layout env"),
            ("--format=contract instance-env", "instance-env --layout=contract"),
            ("instance-env --format json", "instance-env --format json"),
            ("status --format env", "status --format env"),
        ] {
            assert_eq!(translated(line), expected, "{line}");
        }
    }
}
