//! Whether an image in a registry is one that the keys of a trust bundle release.

use std::fmt::Write as _;
use std::path::Path;

use sbs_client::Shown;
use sbs_proto::{Credentials, ImageReference, ParseImageReferenceError, TrustBundle, parse_json};
use sbs_registry::image_trust::{
    CheckImageError, Form, ImageTrust, Outcome, Question, ReadTrustError, Report, Signer, Standing,
    Verdict, check_image,
};
use sbs_registry::notary::shares_logins;
use sbs_registry::{
    DocumentKind, Log, MakeRegistryClientError, RegistryClient, RegistryError, RegistryTrust,
    chain, find_cause,
};
use serde_json::{Value, json};
use thiserror::Error;
use time::OffsetDateTime;

use crate::error::{CommandError, Kind};
use crate::file;
use crate::limits::{self, PEM_BYTES, REASON_CHARS, TRUST_BYTES};
use crate::login::{AuthFiles, LoginError};
use crate::ui::Ui;

/// What is asked about an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) image: &'a ImageReference,
    /// The trust bundle.
    pub(crate) trust: &'a Path,
    /// The file with the credentials, instead of the usual ones.
    pub(crate) auth_file: Option<&'a Path>,
    /// Authorities of registries that count beside those of the system.
    pub(crate) ca_file: Option<&'a Path>,
    /// Token servers, beside the registry itself, that may have the credentials.
    pub(crate) token_hosts: &'a [String],
}

/// Parses what names one image.
pub(crate) fn parse_image(text: &str) -> Result<ImageReference, ParseImageError> {
    let image = ImageReference::parse(text)?;
    if image.tag().is_none() && image.digest().is_none() {
        return Err(ParseImageError::NoImage);
    }
    Ok(image)
}

/// Why a text does not name one image.
#[derive(Debug, Error)]
pub(crate) enum ParseImageError {
    #[error("it has neither a tag nor a digest")]
    NoImage,

    #[error(transparent)]
    Reference(#[from] ParseImageReferenceError),
}

/// Checks an image in every form, prints what each came to, and fails if it is not released.
pub(crate) async fn run(
    asked: &Asked<'_>,
    now: OffsetDateTime,
    ui: &Ui,
) -> Result<(), CommandError> {
    let trust = ImageTrust::read(&read_bundle(asked.trust)?, now)?;
    let image = asked.image;
    if !trust.is_for(image) {
        return Err(other_repository(image, &trust));
    }
    let files = AuthFiles::read(asked.auth_file)?;
    let registry_login = files.of_image(image)?;
    let notary_login = notary_login(&files, &trust, image)?;
    let (registry_login, notary_login) = (registry_login.as_ref(), notary_login.as_ref());
    let question = Question { image, trust: &trust, registry_login, notary_login, now };
    let report = check_image(&client(asked)?, question, &Notes(ui.clone())).await?;
    ui.result(to_text(&report), to_json(&report))?;
    require(&report)
}

fn read_bundle(path: &Path) -> Result<TrustBundle, CommandError> {
    let hint = "save it with sbs get-trust, or get it from whoever may, and name it with --trust";
    let bytes =
        file::read(path, TRUST_BYTES).map_err(|error| CommandError::from(error).hint(hint))?;
    parse_json(&bytes).map_err(|error| {
        let text = format!("`{}` is not a trust bundle: {error}", path.display());
        CommandError::new(Kind::Config, Shown::short(&text, REASON_CHARS).to_string()).hint(hint)
    })
}

fn client(asked: &Asked<'_>) -> Result<RegistryClient, CommandError> {
    let extra_ca_pem = asked.ca_file.map(|path| file::read(path, PEM_BYTES)).transpose()?;
    let mut token_hosts = asked.token_hosts.to_vec();
    // A notary's users log in where those of the registry do.
    token_hosts.push(asked.image.registry().api_host().to_owned());
    let trust = RegistryTrust { extra_ca_pem: extra_ca_pem.unwrap_or_default(), token_hosts };
    Ok(RegistryClient::new(&trust, limits::registry())?)
}

/// Returns the credentials for the notary: its own, or those of the registry where they are one
/// service.
fn notary_login(
    files: &AuthFiles,
    trust: &ImageTrust,
    image: &ImageReference,
) -> Result<Option<Credentials>, CommandError> {
    let Some(notary) = trust.notary() else { return Ok(None) };
    match files.of_host(notary.host())? {
        None if shares_logins(notary, image.registry()) => Ok(files.of_image(image)?),
        own => Ok(own),
    }
}

fn to_text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _infallible = writeln!(text, "{name:<LABEL_WIDTH$}{}", Shown::line(value));
    };
    line("image", &report.image().to_string());
    let index = match report.kind() {
        DocumentKind::Image => "",
        DocumentKind::Index => " (an index; the images in it are not checked)",
    };
    line("digest", &format!("{}{index}", report.digest()));
    for (form, outcome) in report.forms() {
        let told = match details(outcome) {
            Some(details) => format!("{}: {details}", in_words(outcome)),
            None => in_words(outcome).to_owned(),
        };
        line(title(form), &told);
    }
    line(
        "verdict",
        match report.verdict() {
            Verdict::Good => "good",
            Verdict::Invalid => "INVALID: do not use this image",
            Verdict::NotAnswered => "not known: not everything was answered",
            Verdict::Unsigned => "UNSIGNED: do not use this image",
        },
    );
    if let Some(pinned) = report.pinned() {
        line("pull", &pinned.to_string());
    }
    text.trim_end().to_owned()
}

fn to_json(report: &Report) -> Value {
    let forms = report.forms().map(|(form, outcome)| {
        let (form, result) = (form.as_str(), outcome.as_str());
        match outcome {
            Outcome::Valid(Signer { build, key, name, standing }) => {
                let build = build.as_ref().map(ToString::to_string);
                let retiring = *standing == Standing::Retiring;
                json!({
                    "build": build, "form": form, "key": key, "result": result,
                    "retiring": retiring, "signed": name,
                })
            }
            outcome => json!({ "form": form, "reason": details(outcome), "result": result }),
        }
    });
    let kind = match report.kind() {
        DocumentKind::Image => "image",
        DocumentKind::Index => "index",
    };
    json!({
        "digest": report.digest(),
        "forms": forms,
        "image": report.image(),
        "kind": kind,
        "pull": report.pinned(),
        "verdict": report.verdict().as_str(),
    })
}

fn title(form: Form) -> &'static str {
    match form {
        Form::CosignBundle => "cosign bundle",
        Form::CosignTag => "cosign tag",
        Form::Notary => "notary",
        Form::SimpleSigning => "simple signing",
    }
}

fn in_words(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Invalid(_) => "INVALID",
        Outcome::Missing(_) => "missing",
        Outcome::NotAnswered(_) => "not answered",
        Outcome::NotChecked => "not checked: the bundle names no key",
        Outcome::Valid(_) => "valid",
    }
}

fn details(outcome: &Outcome) -> Option<String> {
    // Some of these repeat what a registry said.
    let cut = |text: String| Some(Shown::short(&text, REASON_CHARS).to_string());
    match outcome {
        Outcome::Invalid(why) => cut(chain(why)),
        Outcome::Missing(why) => cut(why.to_string()),
        Outcome::NotAnswered(why) => cut(chain(why)),
        Outcome::NotChecked => None,
        Outcome::Valid(Signer { build, key, name, standing }) => {
            let build = build.as_ref().map(|build| format!(", build {build}")).unwrap_or_default();
            Some(format!("{} key {key}, for {name}{build}", standing.as_str()))
        }
    }
}

fn require(report: &Report) -> Result<(), CommandError> {
    let image = report.image();
    let (kind, text, hint) = match report.verdict() {
        Verdict::Good => return Ok(()),
        Verdict::Invalid => (
            Kind::Unverified,
            "has a signature that does not hold",
            "is the bundle the present one of this image? the tag may also mean another image now",
        ),
        Verdict::NotAnswered => (
            Kind::Unreachable,
            "could not be checked in every form",
            "run it again; until then it is not known whether the image is signed",
        ),
        Verdict::Unsigned => (
            Kind::Unverified,
            "is not signed as it must be",
            "it needs a cosign signature by an image key, and the notary's word where the bundle \
             names a notary",
        ),
    };
    let mut causes = report.forms().into_iter().filter_map(|(_, outcome)| match outcome {
        Outcome::NotAnswered(why) => why.registry_error(),
        _ => None,
    });
    let error = CommandError::new(kind, format!("image `{image}` {text}")).hint(hint);
    Err(with_option(error, causes.find_map(option)))
}

/// Says by which option a registry is got to answer.
fn option(error: &RegistryError) -> Option<&'static str> {
    match error {
        RegistryError::Denied { .. } | RegistryError::Unauthorized { .. } => Some(
            "--authfile names a file with the user name and password, as skopeo login writes it",
        ),
        RegistryError::RealmNotAllowed { .. } => {
            Some("here that is the option --token-host, if that server may have the password")
        }
        RegistryError::Untrusted { .. } => {
            Some("here that is the option --ca-file, with the certificate of that authority")
        }
        _ => None,
    }
}

fn with_option(error: CommandError, option: Option<&'static str>) -> CommandError {
    match option {
        Some(option) => error.hint(option),
        None => error,
    }
}

fn other_repository(image: &ImageReference, trust: &ImageTrust) -> CommandError {
    let error = format!(
        "the trust bundle is for images of `{}`, and `{image}` is none of them",
        trust.repository()
    );
    CommandError::new(Kind::Config, error).hint("name the bundle of this image with --trust")
}

impl From<CheckImageError> for CommandError {
    fn from(error: CheckImageError) -> Self {
        let kind = match &error {
            CheckImageError::NotServed { .. } => Kind::Unverified,
            CheckImageError::Unanswered { .. } => Kind::Unreachable,
            _ => Kind::Config,
        };
        let option = find_cause(&error).and_then(option);
        with_option(Self::new(kind, error), option)
    }
}

impl From<ReadTrustError> for CommandError {
    fn from(error: ReadTrustError) -> Self {
        Self::new(Kind::Config, error).hint("get the bundle again: sbs get-trust")
    }
}

impl From<LoginError> for CommandError {
    fn from(error: LoginError) -> Self {
        Self::new(Kind::Config, error)
    }
}

impl From<MakeRegistryClientError> for CommandError {
    fn from(error: MakeRegistryClientError) -> Self {
        let error = Self::new(Kind::Config, error);
        error.hint("--ca-file names a file with certificates, PEM")
    }
}

/// Tells the user what is tried again.
#[derive(Clone, Debug)]
struct Notes(Ui);

impl Log for Notes {
    fn info(&self, message: &str) {
        self.0.detail(Shown::line(message));
    }

    fn warning(&self, message: &str) {
        self.0.note(Shown::line(message));
    }
}

const LABEL_WIDTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_tag_or_a_digest() {
        parse_image("r.example/app:v1").unwrap();
        parse_image(&format!("r.example/app@sha256:{}", "a".repeat(64))).unwrap();
        for bad in
            ["r.example/app", "r.example/app:", "r.example/App:v1", "r.example/app@sha256:1", ""]
        {
            parse_image(bad).unwrap_err();
        }
    }
}
