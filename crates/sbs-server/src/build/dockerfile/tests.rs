use proptest::prelude::*;

use super::*;

fn arguments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn plan_of(text: &str) -> Result<Plan, PlanError> {
    plan(text, &BTreeMap::new(), &RegistryHost::docker_hub())
}

fn images(plan: &Plan) -> Vec<String> {
    plan.images().iter().map(ToString::to_string).collect()
}

/// The Dockerfile with every image replaced by its number in angle brackets.
fn numbered(plan: &Plan) -> String {
    let images = plan.images().to_vec();
    let number = |image: &ImageReference| images.iter().position(|i| i == image).unwrap();
    plan.rewrite(|image| format!("<{}>", number(image))).text().to_owned()
}

#[test]
fn finds_and_replaces_every_image_from_outside() {
    let host = platform::host();
    for (text, expected_images, expected) in [
        ("FROM debian:12\n", vec!["docker.io/library/debian:12"], "FROM <0>\n"),
        ("from a.b:5000/c/d", vec!["a.b:5000/c/d"], "from <0>"),
        ("FROM scratch\nCOPY a /\n", vec![], "FROM scratch\nCOPY a /\n"),
        (
            "FROM a AS one\nFROM b AS two\nFROM ONE\nCOPY --from=two /x /\nCOPY --from=1 /x /\n",
            vec!["docker.io/library/a", "docker.io/library/b"],
            "FROM <0> AS one\nFROM <1> AS two\nFROM one\nCOPY --from=two /x /\nCOPY --from=1 /x /\n",
        ),
        (
            "FROM a\nCOPY --chown=1 --from=c/d:e --chmod=1 /x /\nCOPY --from=a /y /\n",
            vec!["docker.io/library/a", "docker.io/c/d:e"],
            "FROM <0>\nCOPY --chown=1 --from=<1> --chmod=1 /x /\nCOPY --from=<0> /y /\n",
        ),
        // An image may have the name that its own stage is given.
        ("FROM a AS a\nFROM a\n", vec!["docker.io/library/a"], "FROM <0> AS a\nFROM a\n"),
        (
            "FROM a\nRUN --mount=type=bind,from=b:c,target=/x --mount=type=tmpfs,target=/y ls\n",
            vec!["docker.io/library/a", "docker.io/library/b:c"],
            "FROM <0>\nRUN --mount=type=bind,from=<1>,target=/x --mount=type=tmpfs,target=/y ls\n",
        ),
        (
            "FROM a\nONBUILD COPY --from=b /x /\n",
            vec!["docker.io/library/a", "docker.io/library/b"],
            "FROM <0>\nONBUILD COPY --from=<1> /x /\n",
        ),
        (
            "FROM --platform=$BUILDPLATFORM a\n",
            vec!["docker.io/library/a"],
            &format!("FROM --platform={host} <0>\n"),
        ),
        (
            "FROM \\\n# comment\n  a \\\n AS x\nRUN b \\\n\n  && c\n",
            vec!["docker.io/library/a"],
            "FROM \\\n# comment\n  <0> \\\n AS x\nRUN b \\\n\n  && c\n",
        ),
        ("\u{feff}FROM a\r\nRUN b\r\n", vec!["docker.io/library/a"], "FROM <0>\r\nRUN b\r\n"),
        // Words in commands, names and files are no references.
        (
            "FROM a\nRUN echo --from=b\nCOPY --chown=c d e\nCMD [\"--from=f\"]\nENV X=--from=g\n",
            vec!["docker.io/library/a"],
            "FROM <0>\nRUN echo --from=b\nCOPY --chown=c d e\nCMD [\"--from=f\"]\nENV X=--from=g\n",
        ),
    ] {
        let plan = plan_of(text).unwrap();
        assert_eq!(images(&plan), expected_images, "{text}");
        assert_eq!(numbered(&plan), expected, "{text}");
    }
}

#[test]
fn variables_of_from_take_defaults_and_supplied_values() {
    let supplied = arguments(&[("SUPPLIED", "s.example/s"), ("BOTH", "b.example/b:2")]);
    for (text, expected) in [
        ("ARG X=a:1\nFROM $X\n", "docker.io/library/a:1"),
        ("ARG X=\"a:1\"\nFROM \"${X}\"\n", "docker.io/library/a:1"),
        ("ARG TAG=1 NAME=b\nFROM ${NAME}:${TAG}\n", "docker.io/library/b:1"),
        ("ARG V=1\nARG X=a:$V\nFROM $X\n", "docker.io/library/a:1"),
        ("ARG SUPPLIED\nFROM $SUPPLIED\n", "s.example/s"),
        ("ARG BOTH=c:1\nFROM ${BOTH}\n", "b.example/b:2"),
        ("FROM ${NO:-a:3}\n", "docker.io/library/a:3"),
        ("ARG X\nFROM ${X:-a:3}\n", "docker.io/library/a:3"),
        ("ARG V=1\nFROM a${V:+:slim}\n", "docker.io/library/a:slim"),
        ("ARG X=a \\\n  Y=b\nFROM $Y\n", "docker.io/library/b"),
        ("ARG UNUSED=${a#b}\nFROM c\n", "docker.io/library/c"),
    ] {
        let plan = plan(text, &supplied, &RegistryHost::docker_hub()).unwrap();
        assert_eq!(images(&plan), [expected], "{text}");
    }
    // A supplied argument counts only where it is declared, and one of a stage not for FROM.
    for text in ["FROM $SUPPLIED\n", "FROM a\nARG X=b\nFROM $X\n", "ARG X\nFROM a:$X\n"] {
        let result = plan(text, &supplied, &RegistryHost::docker_hub());
        assert!(matches!(result, Err(PlanError::Undefined { .. })), "{text}");
    }
    let error = plan_of("\n\nFROM a:${VERSION}\n").unwrap_err();
    assert!(error.to_string().starts_with("line 3: `VERSION` has no value"), "{error}");
}

#[test]
fn a_variable_may_name_a_stage_or_scratch() {
    let text = "ARG V=two\nARG S=scratch\nFROM a AS one\nFROM b AS Two\nFROM ${V}\nFROM $S\n";
    let plan = plan_of(text).unwrap();
    let expected =
        "ARG V=two\nARG S=scratch\nFROM <0> AS one\nFROM <1> AS Two\nFROM Two\nFROM scratch\n";
    assert_eq!(numbered(&plan), expected);
    let architecture = platform::host().replace("linux/", "");
    let plan = plan_of(&format!("FROM a AS build-{architecture}\nFROM build-$TARGETARCH\n"));
    let expected = format!("FROM <0> AS build-{architecture}\nFROM build-{architecture}\n");
    assert_eq!(numbered(&plan.unwrap()), expected);
}

#[test]
fn references_without_registry_get_the_default_one() {
    let registry = RegistryHost::parse("r.example:5000").unwrap();
    let text = "FROM a\nCOPY --from=b/c /x /\nCOPY --from=d.example/e /x /\n";
    let plan = plan(text, &BTreeMap::new(), &registry).unwrap();
    assert_eq!(images(&plan), ["r.example:5000/a", "r.example:5000/b/c", "d.example/e"]);
}

#[test]
fn arguments_of_the_platform_are_given_where_they_are_declared() {
    let text = "FROM a\nARG TARGETARCH\nARG TARGETOS=plan9\nARG OTHER\n";
    let resolved = plan_of(text).unwrap().rewrite(ToString::to_string);
    let names: Vec<_> = resolved.arguments().keys().collect();
    assert_eq!(names, ["TARGETARCH"]);
    let supplied = arguments(&[("TARGETARCH", "mips")]);
    let plan = plan(text, &supplied, &RegistryHost::docker_hub()).unwrap();
    assert!(plan.rewrite(ToString::to_string).arguments().is_empty());
}

#[test]
fn what_is_not_supported_is_told_with_its_line() {
    for text in [
        "FROM a\nRUN --network=host ls\n",
        "FROM a\nRUN --network=none ls\n",
        "FROM a\nRUN --security=insecure ls\n",
        "FROM a\nRUN --mount=type=cache,target=/x ls\n",
        "FROM a\nRUN --mount=type=secret,id=x ls\n",
        "FROM a\nRUN --mount=type=ssh ls\n",
        "FROM a\nRUN --mount=type=bind,target=/x,rw ls\n",
        "FROM a\nRUN --mount=type=bind,from=$X,target=/x ls\n",
        "FROM a\nRUN --mount=\"type=cache,target=/x\" ls\n",
        "FROM a\nRUN --mo\\\nunt=type=cache,target=/x ls\n",
        "FROM a\nRUN -- --mount=type=cache,target=/x ls\n",
        "FROM a\nRUN --MOUNT=type=bind,target=/x ls\n",
        "FROM a\nRUN --mount ls\n",
        "FROM a\nCOPY --from=$X /x /\n",
        "FROM a\nCOPY --from= /x /\n",
        "FROM a\nCOPY --from /x /\n",
        "FROM a\nCOPY --from=\"b\" /x /\n",
        "FROM a\nADD --from=b /x /\n",
        "FROM a\nONBUILD FROM b\n",
        "FROM a\nONBUILD RUN --mount=type=cache,target=/x ls\n",
        "FROM a\nRUN <<EOF\nls\nEOF\n",
        "FROM a\nCOPY <<EOF /x\nls\nEOF\n",
        "FROM a\nADD https://g.example/r.git /x\n",
        "FROM a\nADD https://g.example/r.git#main:sub /x\n",
        "FROM a\nADD git@g.example:u/r /x\n",
        "FROM a\nADD ssh://g.example/r /x\n",
        "FROM a\nADD GIT://g.example/r /x\n",
        "FROM a\nADD [\"git://g.example/r\", \"/x\"]\n",
        "FROM a\nADD $URL /x\n",
        "FROM scratch\nFROM --pull=always a\n",
        "FROM a\nFROM ${X#y}\n",
        "FROM b AS x\nFROM c AS X\n",
        "FROM scratch\nFROM b AS 0\n",
        "FROM scratch\nFROM b AS x/y\n",
    ] {
        let error = plan_of(text).unwrap_err();
        assert!(matches!(error, PlanError::NotSupported { line: 2, .. }), "{text}: {error}");
    }
}

#[test]
fn what_is_wrong_is_refused() {
    for (text, expected) in [
        ("", "Syntax"),
        ("RUN ls\n", "Syntax"),
        ("FROM a\nNOTHING\n", "Syntax"),
        ("FROM a\nCOPY --from=1 /x /\n", "Stage"),
        ("FROM a\nCOPY --from=0 /x /\n", "Stage"),
        ("FROM a AS s\nCOPY --from=s /x /\n", "Stage"),
        ("FROM a\nCOPY --from=later /x /\nFROM b AS later\n", "Stage"),
        ("FROM a\nCOPY --from=scratch /x /\n", "Stage"),
        ("FROM a\nCOPY --from=99999999999999999999999 /x /\n", "Stage"),
        ("FROM A\n", "Image"),
        ("FROM oci:/etc\n", "Image"),
        ("FROM oci-archive:/etc/x\n", "Image"),
        ("FROM docker://a/b\n", "Image"),
        ("FROM a@sha256:12\n", "Image"),
        ("FROM a\nCOPY --from=../x /x /\n", "Image"),
        ("FROM --platform=linux/mips a\n", "Platform"),
        ("FROM --platform=windows/amd64 a\n", "Platform"),
        ("FROM --platform=$NO a\n", "Undefined"),
        ("# syntax=evil/x\nFROM a\n", "Frontend"),
    ] {
        let error = plan_of(text).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{text}: {error:?}");
    }
}

#[test]
fn the_failure_of_a_foreign_frontend_has_its_own_word() {
    let code = |text| plan_of(text).unwrap_err().failure().code;
    assert_eq!(code("# syntax=evil/x\nFROM a\n"), "frontend_not_allowed");
    assert_eq!(code("FROM A\n"), "bad_dockerfile");
}

#[test]
fn the_number_of_instructions_and_images_has_a_limit() {
    let of = |count: usize| format!("FROM a\n{}", "RUN x\n".repeat(count - 1));
    plan_of(&of(1000)).unwrap();
    assert!(matches!(plan_of(&of(1001)), Err(PlanError::Limit { .. })));
    let of = |count: usize| {
        (0..count).flat_map(|i| ["FROM a:".into(), i.to_string(), "\n".into()]).collect::<String>()
    };
    assert_eq!(plan_of(&of(64)).unwrap().images().len(), 64);
    assert!(matches!(plan_of(&of(65)), Err(PlanError::Limit { .. })));
}

#[test]
fn remote_adds_mounts_and_warnings_are_told() {
    let text = "# syntax=docker/dockerfile:1\nFROM a\nADD http://h.example/x.tgz b /\n";
    let plan = plan_of(text).unwrap();
    assert_eq!(plan.warnings().len(), 1);
    let resolved = plan.rewrite(ToString::to_string);
    assert_eq!(resolved.remote_adds(), ["http://h.example/x.tgz"]);
    assert!(!resolved.has_mounts());
    let plan = plan_of("FROM a\nRUN --mount=type=tmpfs,target=/x ls\n").unwrap();
    assert!(plan.rewrite(ToString::to_string).has_mounts());
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("FROM r.example/a/b:c".to_owned()),
        Just("FROM r.example/a/b:c AS stage".to_owned()),
        Just("COPY --from=r.example/d:e /x /y".to_owned()),
        Just("RUN --mount=type=bind,from=r.example/f:g,target=/x ls".to_owned()),
        Just("# a comment".to_owned()),
        Just(String::new()),
        "RUN [ -~]{0,40}",
        "ENV [A-Z]{1,5}=[a-z]{0,9}",
        "[ -~]{0,20}",
        "\\PC{0,10}",
    ]
}

proptest! {
    #[test]
    fn rewriting_with_the_same_references_changes_nothing(
        lines in proptest::collection::vec(line(), 0..20),
    ) {
        let text = format!("FROM r.example/a/b:c\n{}", lines.join("\n"));
        if let Ok(plan) = plan_of(&text) {
            // Words of another spelling (`scratch` in quotes, a stage in capitals) do change.
            let own_words = plan.edits.iter().any(|e| matches!(e.with, Replacement::Text(_)));
            let fully_spelled = plan.images().iter().all(|i| text.contains(&i.to_string()));
            if !own_words && fully_spelled {
                let resolved = plan.rewrite(ToString::to_string);
                prop_assert_eq!(resolved.text(), text);
            }
        }
    }

    #[test]
    fn a_rewritten_dockerfile_names_only_what_it_was_given(
        lines in proptest::collection::vec(line(), 0..20),
    ) {
        let text = format!("FROM r.example/a/b:c\n{}", lines.join("\n"));
        if let Ok(plan) = plan_of(&text) {
            let resolved = plan.rewrite(|_| "given.example/x:y".to_owned());
            let again = plan_of(resolved.text()).unwrap();
            prop_assert_eq!(images(&again), ["given.example/x:y"]);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,300}") {
        let _result = plan_of(&text);
        let _result = plan_of(&format!("FROM a\n{text}"));
    }
}
