//! The walk over a Dockerfile's instructions.

use std::collections::BTreeMap;
use std::ops::Range;

use parse_dockerfile::{Flag, FromInstruction, Instruction, Source, UnescapedString};
use sbs_proto::{ImageReference, RegistryHost};

use super::expand::{ExpandError, Undefined, expand, split_words};
use super::{Edit, Plan, PlanError, Replacement, mount, platform, short, text};

pub(super) fn plan(
    text: &str,
    arguments: &BTreeMap<String, String>,
    default_registry: &RegistryHost,
) -> Result<Plan, PlanError> {
    // Docker leaves the byte order mark of some editors out, and so does the engine.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text::check(text)?;
    let dockerfile =
        parse_dockerfile::parse(text).map_err(|source| PlanError::Syntax { source })?;
    if dockerfile.instructions.len() > MAX_INSTRUCTIONS {
        return Err(PlanError::Limit { what: "instructions", max: MAX_INSTRUCTIONS });
    }
    let declared = dockerfile.stages().filter_map(|stage| stage.from.as_.as_ref());
    let mut visitor = Visitor {
        text,
        supplied: arguments,
        default_registry,
        globals: platform::arguments(),
        stages: Vec::new(),
        declared: declared.map(|(_, name)| name.value.to_ascii_lowercase()).collect(),
        plan: Plan {
            text: text.to_owned(),
            edits: Vec::new(),
            images: Vec::new(),
            arguments: BTreeMap::new(),
            mounts: false,
            stage_on_stage: false,
            remote_adds: Vec::new(),
            warnings: Vec::new(),
        },
    };
    if let Some(syntax) = &dockerfile.parser_directives.syntax {
        let name = short(syntax.value.value);
        let warning = format!("`# syntax={name}` has no effect: the engine reads the Dockerfile");
        visitor.plan.warnings.push(warning);
    }
    visitor.globals.extend(
        arguments
            .iter()
            .filter(|(name, _)| platform::arguments().contains_key(*name))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    for instruction in &dockerfile.instructions {
        visitor.instruction(instruction)?;
    }
    Ok(visitor.plan)
}

struct Visitor<'a> {
    text: &'a str,
    supplied: &'a BTreeMap<String, String>,
    default_registry: &'a RegistryHost,
    /// The arguments declared before the first stage, and those of the platform.
    globals: BTreeMap<String, String>,
    /// The names of the stages that have begun, as they are written; empty for those without.
    stages: Vec<String>,
    /// The names of all stages, in lower case.
    declared: Vec<String>,
    plan: Plan,
}

impl Visitor<'_> {
    fn instruction(&mut self, instruction: &Instruction<'_>) -> Result<(), PlanError> {
        match instruction {
            Instruction::Add(add) => {
                self.sources(add.add.span.start, &add.options, &add.src)?;
                if let Some(flag) = add.options.iter().find(|flag| flag.name.value == "from") {
                    let what = "the option `--from` of ADD".to_owned();
                    return Err(self.refuse(flag.span().start, what, "use COPY"));
                }
                add.src.iter().try_for_each(|source| self.add_source(source))
            }
            Instruction::Arg(arg) => {
                self.arguments(&arg.arguments);
                Ok(())
            }
            Instruction::Copy(copy) => {
                self.sources(copy.copy.span.start, &copy.options, &copy.src)?;
                for flag in copy.options.iter().filter(|flag| flag.name.value == "from") {
                    let from = self.flag_value(flag)?;
                    self.stage_or_image(&from.value, from.span.clone())?;
                }
                Ok(())
            }
            Instruction::From(from) => self.from(from),
            Instruction::Onbuild(onbuild) => match &*onbuild.instruction {
                Instruction::From(_) | Instruction::Maintainer(_) => {
                    let what = "ONBUILD with this instruction".to_owned();
                    Err(self.refuse(onbuild.onbuild.span.start, what, "remove it"))
                }
                inner => self.instruction(inner),
            },
            Instruction::Run(run) => {
                if !run.here_docs.is_empty() {
                    return Err(self.here_document(run.run.span.start));
                }
                run.options.iter().try_for_each(|flag| self.run_flag(flag))
            }
            _ => Ok(()),
        }
    }

    /// Takes in the names and defaults of an `ARG`.
    fn arguments(&mut self, arguments: &UnescapedString<'_>) {
        for word in split_words(&arguments.value) {
            let (name, default) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            if let Some(value) = platform::arguments().remove(name)
                && !self.supplied.contains_key(name)
                && default.is_none()
            {
                self.plan.arguments.insert(name.to_owned(), value);
            }
            if !self.stages.is_empty() {
                continue;
            }
            let default = default.and_then(|default| {
                expand(default, Undefined::Empty, &|name| self.globals.get(name).cloned()).ok()
            });
            // What cannot be expanded has no value: that is told where it is used.
            match self.supplied.get(name).cloned().or(default) {
                Some(value) => self.globals.insert(name.to_owned(), value),
                None if platform::arguments().contains_key(name) => None,
                None => self.globals.remove(name),
            };
        }
    }

    fn from(&mut self, from: &FromInstruction<'_>) -> Result<(), PlanError> {
        for flag in &from.options {
            self.check_flag(flag)?;
            if flag.name.value != "platform" {
                let what = format!("the option `--{}` of FROM", short(&flag.name.value));
                return Err(self.refuse(flag.span().start, what, "remove it"));
            }
            let value = self.flag_value(flag)?;
            let platform = self.expand(&value.value, value.span.start)?;
            if !platform::is_host(&platform) {
                let (line, platform) = (self.line(value.span.start), short(&platform));
                return Err(PlanError::Platform { line, platform, host: platform::host() });
            }
            // The engine does not know the platform's variables here.
            self.replace(value, platform);
        }
        let image = &from.image;
        let name = self.expand(&image.value, image.span.start)?;
        let stage = self.stages.iter().find(|stage| is_named(stage, &name)).cloned();
        self.plan.stage_on_stage |= stage.is_some();
        if let Some(stage) = stage.or_else(|| (name == "scratch").then(|| name.clone())) {
            self.replace(image, stage);
        } else {
            self.image(&name, image.span.clone())?;
        }
        let name = from.as_.as_ref().map(|(_, name)| name);
        if let Some(name) = name
            && (!is_stage_name(&name.value)
                || self.stages.iter().any(|stage| is_named(stage, &name.value)))
        {
            let what = format!("the stage name `{}`", short(&name.value));
            let advice = "each stage has its own name: a letter, then letters, digits, `-_.`";
            return Err(self.refuse(name.span.start, what, advice));
        }
        self.stages.push(name.map(|name| name.value.to_string()).unwrap_or_default());
        Ok(())
    }

    /// Checks the options of `ADD` or `COPY` at `at`, and that no source is a here-document.
    fn sources(
        &self,
        at: usize,
        options: &[Flag<'_>],
        sources: &[Source<'_>],
    ) -> Result<(), PlanError> {
        options.iter().try_for_each(|flag| self.check_flag(flag))?;
        if sources.iter().any(|source| matches!(source, Source::HereDoc(_))) {
            return Err(self.here_document(at));
        }
        Ok(())
    }

    fn add_source(&mut self, source: &Source<'_>) -> Result<(), PlanError> {
        let Source::Path(path) = source else { return Ok(()) };
        let lower = path.value.trim_start_matches(['"', '\'', '\\']).to_ascii_lowercase();
        if lower.starts_with('$') {
            let what = "a source of ADD that begins with a variable".to_owned();
            return Err(self.refuse(
                path.span.start,
                what,
                "use COPY, or write the URL's beginning",
            ));
        }
        let address = lower.split(['#', '?']).next().unwrap_or_default();
        let is_git = ["git@", "git:", "ssh:", "file:"].iter().any(|p| lower.starts_with(p))
            || (address.contains("://") && address.rsplit('.').next() == Some("git"));
        if is_git {
            let what = "a git repository as a source of ADD".to_owned();
            return Err(self.refuse(path.span.start, what, "add it as a submodule"));
        }
        if lower.contains("://") {
            self.plan.remote_adds.push(path.value.to_string());
        }
        Ok(())
    }

    fn run_flag(&mut self, flag: &Flag<'_>) -> Result<(), PlanError> {
        self.check_flag(flag)?;
        if flag.name.value != "mount" {
            let what = format!("the option `--{}` of RUN", short(&flag.name.value));
            let advice = "remove it; what a build can reach is set for the whole server";
            return Err(self.refuse(flag.span().start, what, advice));
        }
        let value = self.flag_value(flag)?;
        self.plan.mounts = true;
        let at = value.span.start;
        let from =
            mount::parse(&value.value).map_err(|(what, advice)| self.refuse(at, what, advice))?;
        let Some((name, span)) = from else { return Ok(()) };
        self.stage_or_image(name, at + span.start..at + span.end)
    }

    /// Takes in what stands behind `--from=` or `from=`.
    fn stage_or_image(&mut self, name: &str, span: Range<usize>) -> Result<(), PlanError> {
        // The last of the stages is the one that this instruction is part of.
        let earlier = self.stages.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
        if let Some(stage) = earlier.iter().find(|stage| is_named(stage, name)).cloned() {
            if stage != name {
                self.plan.edits.push(Edit { span, with: Replacement::Text(stage) });
            }
            return Ok(());
        }
        let index = name.bytes().all(|b| b.is_ascii_digit()).then(|| name.parse::<usize>());
        match index {
            Some(Ok(index)) if index < earlier.len() => return Ok(()),
            None if name != "scratch" && !self.declared.contains(&name.to_ascii_lowercase()) => {}
            _ => {
                return Err(PlanError::Stage { line: self.line(span.start), name: short(name) });
            }
        }
        self.image(name, span)
    }

    fn image(&mut self, name: &str, span: Range<usize>) -> Result<(), PlanError> {
        let image = ImageReference::parse_with(name, self.default_registry).map_err(|source| {
            PlanError::Image { line: self.line(span.start), word: short(name), source }
        })?;
        let known = self.plan.images.iter().position(|known| *known == image);
        let index = known.unwrap_or(self.plan.images.len());
        if known.is_none() {
            self.plan.images.push(image);
        }
        if self.plan.images.len() > MAX_IMAGES {
            return Err(PlanError::Limit { what: "images from outside", max: MAX_IMAGES });
        }
        self.plan.edits.push(Edit { span, with: Replacement::Image(index) });
        Ok(())
    }

    /// Puts `new` in the place of a word, where it is not there already.
    fn replace(&mut self, word: &UnescapedString<'_>, new: String) {
        let span = word.span.clone();
        if self.text.get(span.clone()) != Some(&*new) {
            self.plan.edits.push(Edit { span, with: Replacement::Text(new) });
        }
    }

    /// Checks the form of an option: the engine must find the same one.
    fn check_flag(&self, flag: &Flag<'_>) -> Result<(), PlanError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b == b'-';
        let name = &flag.name.value;
        let span = flag.span();
        let as_written = self.text.get(span.clone()).unwrap_or_default();
        let strange = |c: char| matches!(c, '"' | '\'' | '\\' | '`' | '\n' | '\r');
        if name.is_empty() || !name.bytes().all(plain) || as_written.contains(strange) {
            let what = format!("the option `{}`", short(as_written));
            let advice = "write options in lower case, without quotes, and not across lines";
            return Err(self.refuse(span.start, what, advice));
        }
        Ok(())
    }

    /// Returns the value of an option that names an image, a stage, a platform or a mount.
    fn flag_value<'f>(&self, flag: &'f Flag<'_>) -> Result<&'f UnescapedString<'f>, PlanError> {
        let value = flag.value.as_ref().filter(|value| !value.value.is_empty());
        let Some(value) = value else {
            let what = format!("the option `--{}` without a value", short(&flag.name.value));
            return Err(self.refuse(flag.span().start, what, "give it one with `=`"));
        };
        if value.value.contains('$') && flag.name.value != "platform" {
            let what = format!("a variable in the option `--{}`", short(&flag.name.value));
            let advice = "name the image in a FROM with AS, and use the name of that stage";
            return Err(self.refuse(value.span.start, what, advice));
        }
        Ok(value)
    }

    fn expand(&self, word: &str, at: usize) -> Result<String, PlanError> {
        let value = |name: &str| self.globals.get(name).cloned();
        expand(word, Undefined::Refuse, &value).map_err(|error| match error {
            ExpandError::Undefined(name) => {
                PlanError::Undefined { line: self.line(at), name: short(&name) }
            }
            ExpandError::Form | ExpandError::Limit => {
                let what = format!("the word `{}`", short(word));
                self.refuse(at, what, "write the name, or a variable as `${X}` or `${X:-default}`")
            }
        })
    }

    fn here_document(&self, at: usize) -> PlanError {
        self.refuse(at, "a here-document".to_owned(), "join the commands with `&& \\`")
    }

    fn refuse(&self, at: usize, what: String, advice: &'static str) -> PlanError {
        PlanError::NotSupported { line: self.line(at), what, advice }
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.bytes().take(at);
        before.filter(|byte| *byte == b'\n').count() + 1
    }
}

/// Tells whether a stage has this name; names of stages know no case.
fn is_named(stage: &str, name: &str) -> bool {
    !stage.is_empty() && stage.eq_ignore_ascii_case(name)
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name.len() <= MAX_STAGE_NAME_BYTES
}

const MAX_INSTRUCTIONS: usize = 1000;
const MAX_IMAGES: usize = 64;
const MAX_STAGE_NAME_BYTES: usize = 128;
