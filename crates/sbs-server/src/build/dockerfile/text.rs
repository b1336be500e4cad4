//! What the text of a Dockerfile must be like, so that there is one way to read it.
//!
//! The engine's parser is older than ours. It cuts lines at 64 KiB, takes spaces of other scripts
//! for spaces, and finds `# escape=` where ours does not: such text is refused.

use super::PlanError;

/// Checks the text before it is parsed.
pub(super) fn check(text: &str) -> Result<(), PlanError> {
    if text.len() > MAX_BYTES {
        return Err(PlanError::Limit { what: "bytes", max: MAX_BYTES });
    }
    let mut before_instructions = true;
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.len() > MAX_LINE_BYTES {
            let what = format!("a line of more than {MAX_LINE_BYTES} bytes");
            let advice = "break it with `\\`";
            return Err(PlanError::NotSupported { line: number, what, advice });
        }
        let content = line.trim_start_matches([' ', '\t']);
        let is_comment = content.starts_with('#');
        check_characters(number, line, is_comment)?;
        if is_comment && before_instructions {
            check_directive(number, content)?;
        } else if !content.is_empty() {
            before_instructions = false;
        }
        if !is_comment && line.trim_end_matches([' ', '\t']).ends_with("\\\\") {
            let what = "a line that ends with two backslashes".to_owned();
            let advice = "parsers disagree on whether it goes on; write it another way";
            return Err(PlanError::NotSupported { line: number, what, advice });
        }
    }
    Ok(())
}

fn check_characters(line: usize, text: &str, is_comment: bool) -> Result<(), PlanError> {
    let bad = |c: &char| match c {
        ' ' | '\t' => false,
        c => c.is_control() || (!is_comment && c.is_whitespace()),
    };
    let Some(c) = text.chars().find(bad) else { return Ok(()) };
    let what = format!("the character {}", c.escape_unicode());
    Err(PlanError::NotSupported { line, what, advice: "write a plain space or leave it out" })
}

fn check_directive(line: usize, comment: &str) -> Result<(), PlanError> {
    let content = comment.trim_start_matches('#').trim_start_matches([' ', '\t']);
    let Some((name, value)) = content.split_once('=') else { return Ok(()) };
    let value = value.trim_matches([' ', '\t']);
    match name.trim_end_matches([' ', '\t']).to_ascii_lowercase().as_str() {
        "escape" if value != "\\" => Err(PlanError::NotSupported {
            line,
            what: "another escape character than `\\`".to_owned(),
            advice: "remove `# escape=`",
        }),
        "syntax" if !is_docker_frontend(value) => Err(PlanError::Frontend { line }),
        _ => Ok(()),
    }
}

/// Tells whether a frontend is Docker's own, in any version.
fn is_docker_frontend(value: &str) -> bool {
    let name = value.strip_prefix("docker.io/").unwrap_or(value);
    name.strip_prefix("docker/dockerfile")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
}

const MAX_BYTES: usize = 1024 * 1024;
const MAX_LINE_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_a_foreign_frontend_is_refused() {
        for text in [
            "# syntax=attacker/frontend\n",
            "#syntax = attacker/frontend\n",
            "  # SYNTAX=docker/dockerfile-evil\n",
            "# comment\n\n# syntax=docker.io/docker/dockerfiles\n",
            "# syntax=\n",
            "# escape=\\\n# syntax=evil.example/docker/dockerfile\n",
        ] {
            assert!(matches!(check(text), Err(PlanError::Frontend { .. })), "{text:?}");
        }
        for text in [
            "# syntax=docker/dockerfile\n",
            "#syntax=docker/dockerfile:1.4@sha256:00\r\n",
            "# syntax = docker.io/docker/dockerfile:1\n",
            "FROM scratch\n# syntax=told in a comment\n",
        ] {
            check(text).unwrap();
        }
    }

    #[test]
    fn text_that_parsers_read_differently_is_refused() {
        let long = format!("RUN {}", "a".repeat(MAX_LINE_BYTES));
        for text in [
            "# escape=`\n",
            " # Escape = ` \n",
            "RUN a \\\\\n",
            "RUN a \\\\  \r\n",
            "RUN \u{a0}--mount=type=cache,target=/x a",
            "RUN a\u{3000}b",
            "RUN a\rRUN b",
            "RUN a\u{b}",
            "RUN a\0",
            "# a\u{1b}[2J",
            &long,
        ] {
            let result = check(text);
            assert!(matches!(result, Err(PlanError::NotSupported { .. })), "{text:?} {result:?}");
        }
        for text in ["# escape=\\\n", "# a\u{3000}b", "RUN a\tb \\\r\n c\r\n", "RUN \"ü\""] {
            check(text).unwrap();
        }
    }

    #[test]
    fn the_size_has_a_limit() {
        check(&"#\n".repeat(MAX_BYTES / 2)).unwrap();
        let larger = "#\n".repeat(MAX_BYTES / 2) + "#";
        assert!(matches!(check(&larger), Err(PlanError::Limit { .. })));
    }
}
