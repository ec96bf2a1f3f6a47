//! `berth image` by an ordinary user: the store is the user's own.

use std::fs;

use berth_tests::{Layout, OrdinaryUser, Registry, as_user, berth, pod};
use serde_json::json;

#[track_caller]
fn blobs(user: &OrdinaryUser<'_>) -> usize {
    let blobs = user.home().join(".local/share/berth/images/blobs/sha256");
    fs::read_dir(blobs).into_iter().flatten().count()
}

#[test]
fn images_are_pulled_listed_kept_while_used_and_removed() {
    as_user(|node, user| {
        // On the machine's loopback, which pods don't reach.
        let registry = Registry::start(node);
        let config =
            json!({ "Entrypoint": ["/bin/berth-helper"], "Cmd": ["sleep", "inf"], "Env": ["PATH=/bin"] });
        let layout = |name: &str| {
            Layout::make(
                &node.scratch().join(name),
                name,
                config.clone(),
                &[("/name", name)],
            )
        };
        registry.push(&layout("used"), "team/used", "1");
        registry.push(&layout("spare"), "team/spare", "1");
        let [used, spare] = ["used", "spare"].map(|name| format!("{}/team/{name}:1", Registry::HOST));
        let imported = layout("example.test/imported:1").archive();
        fs::copy(&imported, user.home().join("imported.tar")).unwrap();

        berth(user, &["image", "ls"]).expect_code(0);
        berth(user, &["image", "pull", &used, &spare]).expect_code(0);
        berth(user, &["image", "import", "imported.tar"]).expect_code(0);
        berth(user, &["image", "ls"]).expect_code(0).expect_output(&[
            "team/used",
            "team/spare",
            "example.test/imported",
        ]);
        berth(user, &["image", "inspect", &used])
            .expect_code(0)
            .expect_output(&["sleep"]);
        berth(
            user,
            &["image", "pull", &format!("{}/team/none:1", Registry::HOST)],
        )
        .expect_code(1);

        let containers =
            json!({ "containers": [{ "name": "main", "image": &used, "imagePullPolicy": "Never" }] });
        let file = user.file("pod.yaml", &pod("user", containers));
        berth(user, &["run", "-d", &file.display().to_string()]).expect_code(0);
        berth(user, &["wait", "user", "--for=condition=Ready"]).expect_code(0);
        berth(user, &["exec", "user", "--", "berth-helper", "cat", "/name"])
            .expect_code(0)
            .expect_output(&["used"]);
        // What a container uses stays.
        berth(user, &["image", "prune", "--all", "--dry-run"])
            .expect_code(0)
            .expect_output(&["team/spare"]);
        berth(user, &["image", "prune", "--all"]).expect_code(0);
        let listed = berth(user, &["image", "ls"])
            .expect_code(0)
            .expect_output(&["team/used"])
            .output;
        assert!(
            !listed.contains("spare") && !listed.contains("imported"),
            "{listed}"
        );
        berth(user, &["exec", "user", "--", "berth-helper", "cat", "/name"]).expect_code(0);
        berth(user, &["rm", "--force", "user"]).expect_code(0);
        let before = blobs(user);
        berth(user, &["image", "rm", &used]).expect_code(0);
        let listed = berth(user, &["image", "ls"]).expect_code(0).output;
        assert!(!listed.contains("team/"), "{listed}");
        assert!(blobs(user) < before, "{} blobs, {before} before", blobs(user));
        registry.stop();
    });
}
