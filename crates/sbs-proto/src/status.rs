use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ImageTag;

/// The status object of `GET /image`, and the first part of a build record.
///
/// A fresh server answers with `status` alone; during a build the other fields are empty strings.
/// Serialised keys are in alphabetical order, as the original's are.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BuildStatus {
    /// The tag of the server's own image, as the user wrote it in `IMAGE_TAG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_image_tag: Option<String>,
    /// The name of the build; empty until the image is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_name: Option<String>,
    /// The tag of the built image; empty until the image is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// How the manifest key was made: `soft_crypto`, or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_key_gen: Option<String>,
    /// The name of the file that holds the manifest's public key, or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_public_key: Option<String>,
    /// Seen in answers of the original; we do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_ssh_enabled: Option<bool>,
    /// What was last done, or what failed.
    #[serde(default)]
    pub status: StatusText,
}

impl BuildStatus {
    /// Returns the status of a server that has no image definition yet.
    pub fn fresh() -> Self {
        Self::default()
    }

    /// Returns the status of an initialised server whose build has not ended well.
    pub fn unfinished(build_image_tag: &str, status: StatusText) -> Self {
        Self {
            build_image_tag: Some(build_image_tag.to_owned()),
            build_name: Some(String::new()),
            image_tag: Some(String::new()),
            manifest_key_gen: Some(String::new()),
            manifest_public_key: Some(String::new()),
            root_ssh_enabled: None,
            status,
        }
    }

    /// Returns the same status once the image is pushed and its names are known.
    #[must_use]
    pub fn named(self, build_name: &crate::BuildName, image_tag: &ImageTag) -> Self {
        Self {
            build_name: Some(build_name.to_string()),
            image_tag: Some(image_tag.to_string()),
            manifest_key_gen: Some(SOFTWARE_KEY.to_owned()),
            manifest_public_key: Some(build_name.public_key_file()),
            ..self
        }
    }
}

/// The text of a status: what was last done, or what failed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct StatusText(String);

impl StatusText {
    /// Takes a status text as it came.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text of a step that is done.
    pub fn done(step: Step) -> Self {
        Self(step.as_str().to_owned())
    }

    /// Returns the text of a failed command.
    ///
    /// `command` must hold no credential; `<USERNAME>` and `<PASSWORD>` stand in their place.
    pub fn failed(return_code: i32, command: &str) -> Self {
        Self(format!("{FAILURE_PREFIX}{return_code}, cmd: {command}"))
    }

    /// Returns the text as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns how far the build is that this text tells of.
    pub fn progress(&self) -> Progress {
        match self.0.as_str() {
            "" | RESTARTED_CICD | RESTARTED_NGINX => Progress::Idle,
            text if text == Step::Success.as_str() => Progress::Succeeded,
            text if text.starts_with(FAILURE_PREFIX) => Progress::Failed,
            _ => Progress::Running,
        }
    }
}

impl fmt::Display for StatusText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A step of a build that shows in the status once it is done.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// The work of the build before was removed.
    CleanedUp,
    /// The source was fetched.
    GithubCloned,
    /// The image was built.
    ImageBuilt,
    /// The image was pushed, signed, read back and tagged.
    ImagePushed,
    /// The manifest was written.
    Success,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 5] =
        [Self::CleanedUp, Self::GithubCloned, Self::ImageBuilt, Self::ImagePushed, Self::Success];

    /// Returns the status text that tells that the step is done.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CleanedUp => "cleaned up",
            Self::GithubCloned => "github cloned",
            Self::ImageBuilt => "image built",
            Self::ImagePushed => "image pushed",
            Self::Success => "success",
        }
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The build failed.
    Failed,
    /// No build has begun since the start, the certificate change or the clean.
    Idle,
    /// The build runs.
    Running,
    /// The build succeeded.
    Succeeded,
}

/// The status after a clean.
pub const RESTARTED_CICD: &str = "restarted cicd";
/// The status after a new certificate of the server.
pub const RESTARTED_NGINX: &str = "restarted nginx";
const FAILURE_PREFIX: &str = "exiting due to a non-zero return value: ";
// The original's word for a key that lives in software.
const SOFTWARE_KEY: &str = "soft_crypto";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BuildName;

    fn json(status: &BuildStatus) -> String {
        serde_json::to_string(status).unwrap()
    }

    #[test]
    fn golden_fresh() {
        assert_eq!(json(&BuildStatus::fresh()), r#"{"status":""}"#);
    }

    #[test]
    fn golden_running() {
        let status = BuildStatus::unfinished("1.3.0.20", StatusText::done(Step::GithubCloned));
        assert_eq!(
            json(&status),
            r#"{"build_image_tag":"1.3.0.20","build_name":"","image_tag":"","manifest_key_gen":"","manifest_public_key":"","status":"github cloned"}"#
        );
    }

    #[test]
    fn golden_failed() {
        let text = StatusText::failed(
            1,
            "docker login --username <USERNAME> --password <PASSWORD> docker.io",
        );
        assert_eq!(
            text.as_str(),
            "exiting due to a non-zero return value: 1, cmd: docker login --username <USERNAME> --password <PASSWORD> docker.io"
        );
        assert_eq!(text.progress(), Progress::Failed);
    }

    #[test]
    fn golden_done() {
        let name =
            BuildName::parse("docker.io.ns.app.v1-0a1b2c3.2026-01-02_03-04-05.000006").unwrap();
        let tag = ImageTag::parse("v1-0a1b2c3").unwrap();
        let status =
            BuildStatus::unfinished("1.3.0.20", StatusText::done(Step::Success)).named(&name, &tag);
        assert_eq!(
            json(&status),
            r#"{"build_image_tag":"1.3.0.20","build_name":"docker.io.ns.app.v1-0a1b2c3.2026-01-02_03-04-05.000006","image_tag":"v1-0a1b2c3","manifest_key_gen":"soft_crypto","manifest_public_key":"manifest.docker.io.ns.app.v1-0a1b2c3.2026-01-02_03-04-05.000006-public.pem","status":"success"}"#
        );
    }

    #[test]
    fn reads_unknown_and_missing_keys() {
        let status: BuildStatus =
            serde_json::from_str(r#"{"new":1,"root_ssh_enabled":false,"status":"success"}"#)
                .unwrap();
        assert_eq!(status.status.progress(), Progress::Succeeded);
        assert_eq!(status.root_ssh_enabled, Some(false));
        let status: BuildStatus = serde_json::from_str("{}").unwrap();
        assert_eq!(status, BuildStatus::fresh());
    }

    #[test]
    fn every_step_but_the_last_is_still_running() {
        for step in Step::ALL {
            let expected =
                if step == Step::Success { Progress::Succeeded } else { Progress::Running };
            assert_eq!(StatusText::done(step).progress(), expected, "{step:?}");
        }
        for text in ["", "restarted cicd", "restarted nginx"] {
            assert_eq!(StatusText::new(text).progress(), Progress::Idle, "{text}");
        }
    }
}
