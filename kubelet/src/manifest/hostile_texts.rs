//! Whole texts that are hostile, or what an editor, a shell or a download has made of a manifest: each is refused in words,
//! where its line is, and at once.

use std::time::{Duration, Instant};

use super::{Options, Source, load};

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: i\n";

/// A pod with one more line in its container (line 9).
fn container(line: &str) -> String {
    format!("{POD}    {line}\n")
}

/// A pod with one more line in its metadata (line 5).
fn metadata(line: &str) -> String {
    POD.replace("  name: web\n", &format!("  name: web\n  {line}\n"))
}

fn named(name: &str) -> String {
    POD.replace("web", name)
}

/// What is said of a text, and after how long.
fn said(text: &str) -> (Vec<String>, Duration) {
    let options = Options {
        node: "/n",
        ..Options::default()
    };
    let begin = Instant::now();
    let errors = match load(&[Source { name: "f", text }], options) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    };
    (errors, begin.elapsed())
}

fn texts() -> Vec<(String, &'static str)> {
    let laughs = (1..9).fold("&a0 [x,x,x,x,x,x,x,x,x,x]".to_owned(), |text, level| {
        let last = format!("*a{}", level - 1);
        format!("{text}, &a{level} [{}]", [last.as_str(); 10].join(","))
    });
    let mut all = syntax();
    all.extend(names());
    all.extend(values());
    all.extend([
        (
            metadata(&format!("labels: {{a: [{laughs}]}}")),
            "f:5: more than 200000 values",
        ),
        ("[".repeat(100_000), "f:1: not YAML"),
        (
            format!("{}1{}", "{a: ".repeat(100), "}".repeat(100)),
            "f:1: nested more than 64 levels deep",
        ),
        ("- ".repeat(500), "f:1: nested more than 64"),
        ("? ".repeat(500), "f:1: nested more than 64"),
        ("#".repeat(9 << 20), "f: the file has more than 8388608 bytes"),
        (
            format!("a: {}", "x".repeat(7 << 20)),
            "f:1: apiVersion: Required value",
        ),
        ("a: 1\n".repeat(50_000), "f:1: apiVersion: Required value"),
        ("---\n".repeat(100_000), "f: there is no object in it"),
        (
            metadata(&format!("labels: {{a: {}}}", "x".repeat(1 << 20))),
            "f:5: metadata.labels: Invalid value",
        ),
        (
            metadata(&(0..5000).map(|n| format!("u{n}: x\n  ")).collect::<String>()),
            "and 4900 more",
        ),
        (
            metadata(&format!(
                "labels: {{{}}}",
                (0..50_000).map(|n| format!("l{n}: '-',")).collect::<String>()
            )),
            "and 49900 more",
        ),
    ]);
    all
}

fn syntax() -> Vec<(String, &'static str)> {
    vec![
        (String::new(), "f: there is no object in it"),
        ("# nothing\n---\n---\n".to_owned(), "f: there is no object in it"),
        (
            "<html><body>404</body></html>".to_owned(),
            "f:1: expected an object",
        ),
        ("\u{1f}\u{8b}\u{8}\0".to_owned(), "f:1: not YAML"),
        (named("w\0b"), "f:4: not YAML: found unprintable character"),
        (format!("{POD}\0"), "f:9: not YAML"),
        (POD.replace("  name: web", "\tname: web"), "f:4: not YAML: tabs"),
        (POD.replace("    image", "   image"), "f:8: not YAML"),
        (
            container("image: j"),
            "f:9: spec.containers[0].image: the field is there twice, first on line 8",
        ),
        (
            metadata("labels: {a: b, a: c}"),
            "f:5: metadata.labels[a]: the field is there twice",
        ),
        (
            metadata("labels: {true: b, yes: c}"),
            "f:5: metadata.labels[true]: the field is there twice",
        ),
        (format!("{POD}---\n{POD}"), "f:13: metadata.name: Duplicate value"),
        (
            container("env: [{<<: 5}]"),
            "f:9: '<<' must be a map or a list of maps",
        ),
        (
            container("env: [{<<: [a]}]"),
            "f:9: '<<' must be a map or a list of maps",
        ),
        (
            container("env: *nope"),
            "f:9: not YAML: while parsing node, found unknown anchor",
        ),
        (container("env: &a [*a]"), "f:9: an alias refers to itself"),
        (
            format!("{}---\n{}", metadata("labels: {a: &x b}"), named("*x")),
            "f:14: an alias refers to itself, or to another document",
        ),
        (format!("x: &a {{name: A}}\n{POD}"), "f:1: x: unknown field"),
        (
            container("env: [{name: !!binary aGk=}]"),
            "f:9: the tag tag:yaml.org,2002:binary is not supported",
        ),
        (
            container("env: [{name: !own A}]"),
            "f:9: the tag !own is not supported",
        ),
        (
            metadata("labels: !!python/object:os.system {a: b}"),
            "f:5: the tag",
        ),
        (metadata("labels: !!set {a, b}"), "f:5: the tag"),
        (metadata("[a]: x"), "f:5: a field's name must be a string"),
        (metadata("\"a\\nb\": x"), "f:5: metadata.a\\nb: unknown field"),
        (metadata("labels: {a: \"b"), "f:5: not YAML"),
        (metadata("labels: {a: b"), "f:6: not YAML"),
        (
            "{\"apiVersion\": \"v1\", // x\n\"kind\": \"Pod\"}".to_owned(),
            "f:1: JSON has no comments",
        ),
        (
            "{\"apiVersion\": \"v1\", /* x */ \"kind\": \"Pod\"}".to_owned(),
            "f:1: JSON has no comments",
        ),
        ("{\"apiVersion\": \"v1\"".to_owned(), "not YAML"),
        (
            "{\"apiVersion\": \"v1\"} {\"apiVersion\": \"v1\"}".to_owned(),
            "a line `---` stands between two objects",
        ),
        ("{\"kind\": \"\\ud83d\"}".to_owned(), "f:1: not YAML"),
        (
            "apiVersion: v1\nkind: {a: b}\n".to_owned(),
            "f:1: kind: Required value",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {}\n".to_owned(),
            "f:1: items: expected a list",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List}]\n".to_owned(),
            "f:3: items[0]",
        ),
    ]
}

fn names() -> Vec<(String, &'static str)> {
    let name = "f:4: metadata.name: Invalid value";
    let data =
        |key: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{{key}: v}}\n");
    vec![
        (named("'..'"), name),
        (named("."), name),
        (named("../../etc"), name),
        (named("a/b"), name),
        (named("a%2fb"), name),
        (named("\"w\\0b\""), name),
        (named("\"w\\nb\""), name),
        (
            named("\"w\u{202e}b\""),
            "metadata.name: Invalid value: \"w\\u{202e}b\"",
        ),
        // A Cyrillic letter, a wide one, and a face.
        (named("w\u{435}b"), name),
        (named("\u{ff57}eb"), name),
        (named("\u{1f600}"), name),
        (named(&"x".repeat(300)), "must be no more than 253 characters"),
        (
            named("123"),
            "f:4: metadata.name: expected a string, found the number 123; put it in quotes",
        ),
        (
            named("true"),
            "expected a string, found the boolean true; put it in quotes",
        ),
        (named("~"), "f:4: metadata.name: Required value"),
        (
            metadata("namespace: ../x"),
            "f:5: metadata.namespace: Invalid value",
        ),
        (
            metadata("namespace: a.b"),
            "f:5: metadata.namespace: Invalid value",
        ),
        (metadata("uid: ../../x"), "f:5: metadata.uid: Invalid value"),
        (metadata("uid: \"a\\0\""), "f:5: metadata.uid: Invalid value"),
        (
            POD.replace("name: c", "name: '..'"),
            "f:7: spec.containers[0].name: Invalid value",
        ),
        (
            format!("{POD}  volumes: [{{name: ../v, emptyDir: {{}}}}]\n"),
            "f:9: spec.volumes[0].name: Invalid value",
        ),
        (data("../x"), "f:4: data[../x]: Invalid value"),
        (data(".."), "f:4: data[..]: Invalid value"),
        (data("\"\\0\""), "Invalid value"),
    ]
}

fn values() -> Vec<(String, &'static str)> {
    let port = |text: &str| container(&format!("ports: [{{containerPort: {text}}}]"));
    let mode = |text: &str| {
        format!(
            "{POD}  volumes: [{{name: v, secret: {{secretName: s, optional: true, defaultMode: {text}}}}}]\n"
        )
    };
    let whole = "f:9: spec.containers[0].ports[0].containerPort: expected a whole number";
    vec![
        (port("99999999999999999999999999999999999999999999"), whole),
        (port("170141183460469231731687303715884105728"), whole),
        (port("4294967376"), whole),
        (port("80.5"), whole),
        (port("1e400"), whole),
        (port(".inf"), whole),
        (port(".nan"), whole),
        (port("'80'"), whole),
        (port("1:20"), whole),
        (port("0o17777777"), "must be between 1 and 65535"),
        (
            container("env: [{name: A, value: yes}]"),
            "found the boolean yes; put it in quotes",
        ),
        (
            container("env: [{name: A, value: 0x10}]"),
            "found the number 0x10; put it in quotes",
        ),
        (
            container("env: [null]"),
            "f:9: spec.containers[0].env[0].name: Required value",
        ),
        (
            container("stdin: 1"),
            "expected true or false, found the number 1",
        ),
        (
            container("stdin: 'true'"),
            "expected true or false, found the string \"true\"",
        ),
        (
            mode("644"),
            "f:9: spec.volumes[0].secret.defaultMode: Invalid value: 644",
        ),
        (
            mode("'0644'"),
            "expected a whole number, found the string \"0644\"",
        ),
        (mode("0888"), "Invalid value: 888"),
        (mode("-1"), "Invalid value: -1"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: null\n".to_owned(),
            "f:5: spec.containers: Required value",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: ''\n".to_owned(),
            "f:4: spec: expected an object",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: []\n".to_owned(),
            "f:4: spec: expected an object",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: ~\n".to_owned(),
            "f:4: spec: Required value",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {x: '***'}\n".to_owned(),
            "the values of this field are base64",
        ),
    ]
}

#[test]
fn hostile_texts_are_refused_in_words_and_at_once() {
    let mut wrong = Vec::new();
    for (text, why) in texts() {
        let (errors, time) = said(&text);
        let clear = |error: &String| error.chars().count() < 1300 && !error.chars().any(char::is_control);
        let as_it_should = errors.iter().any(|error| error.contains(why)) && errors.iter().all(clear);
        // Hundreds of times what it takes: not a measurement, but what grows with a square would be over it.
        if !as_it_should || time > Duration::from_secs(20) {
            let begin: String = text.chars().take(300).collect();
            wrong.push(format!(
                "{begin:?}\n  wanted {why:?}, found after {time:?}: {:#?}",
                &errors[..errors.len().min(3)]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn odd_and_right() {
    for text in [
        format!("\u{feff}{POD}"),
        POD.replace('\n', "\r\n"),
        POD.replace('\n', "\r"),
        format!("%YAML 1.1\n---\n{POD}...\n"),
        container("env: [{<<: [{name: A}, {value: b}]}]"),
        container("ports: [{containerPort: 0x50}, {containerPort: 0o121}, {containerPort: 8e1}]"),
        container("stdin: on"),
        container("env: [{name: A, value: 2001-01-01}, {name: B, value: null}, {name: C, value: !!str 5}]"),
        container("resources: {limits: {cpu: null, memory: 1e9}}"),
        container("livenessProbe: {tcpSocket: {port: 80.0}}"),
        container("env: ~"),
        metadata("labels: !!map {a: ~, b: &x c, d: *x}"),
        metadata(&format!(
            "labels: {{{}}}",
            (0..50_000).map(|n| format!("l{n}: x,")).collect::<String>()
        )),
    ] {
        let (errors, time) = said(&text);
        assert_eq!(errors, [""; 0], "{}", text.chars().take(300).collect::<String>());
        assert!(time < Duration::from_secs(20), "{time:?}");
    }
}
