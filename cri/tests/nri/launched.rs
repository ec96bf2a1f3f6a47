//! Plugins that the engine starts itself.

use std::os::unix::fs::PermissionsExt;

use super::bench::Bench;

#[test]
fn the_plugins_of_the_directory_are_started_with_what_they_need() {
    let mut bench = Bench::new();
    bench.kill();
    let _ = std::fs::remove_file(bench.socket());
    let root = bench.root().to_owned();
    let (plugins, configs) = (root.join("plugins"), root.join("conf.d"));
    for directory in [&plugins, &configs] {
        std::fs::create_dir(directory).unwrap();
    }
    let told = plugins.join("told");
    // No plugin: it leaves without registering, which the engine outlives. What it was given is what the test is about.
    let script = format!(
        "#!/bin/sh\n{{ echo $NRI_PLUGIN_IDX $NRI_PLUGIN_NAME $NRI_PLUGIN_SOCKET; readlink /proc/self/fd/3; readlink /proc/self/fd/0; }} > {}\n",
        told.display()
    );
    let program = plugins.join("07-of.the-shell");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(plugins.join("08-not-a-program"), "").unwrap();
    bench.start();
    let text = std::fs::read_to_string(told).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "07 of.the-shell 3");
    assert!(lines[1].starts_with("socket:"), "{text}");
    assert_eq!(lines[2], "/dev/null");
    bench.finish();
}
