//! Berth's table of nftables: masquerading and host ports.
//!
//! The rules are always the same; each attachment only has elements in their sets, which carry the attachment's tag
//! as a comment, so that they are found and removed whatever their number. Everything goes through `nft -f -`, which
//! applies a whole script or nothing of it.

mod added;
mod batch;

use std::collections::HashSet;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::process::{self, Output, RunError};
use crate::result::{PluginError, code};

/// `nft` takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Listing a node's table: some hundred bytes for each element.
const MAX_LIST: usize = 64 << 20;

/// Sets of the `bridge` plugin: pods to masquerade, and each with the networks that it reaches under its own address.
pub(crate) const MASQUERADE_SETS: [&str; 4] = ["masq4", "local4", "masq6", "local6"];
/// Maps and sets of the `portmap` plugin: host ports, with and without an address of the host, and each pod with the
/// networks that must not see its replies from its own address.
pub(crate) const PORT_SETS: [&str; 6] = ["port4", "port4_any", "port6", "port6_any", "hairpin4", "hairpin6"];

/// A table of the family `inet`.
#[derive(Debug)]
pub(crate) struct Firewall<'a> {
    pub(crate) table: &'a str,
    /// The scripts' file, which is locked while `nft` works: one that outlives its killed caller is waited for.
    pub(crate) script: PathBuf,
}

/// An element of one of the table's sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: String,
    /// As `nft` writes it: `tcp . 80`.
    pub(crate) key: String,
    /// For a map's.
    pub(crate) data: Option<String>,
    /// Whose it is.
    pub(crate) tag: String,
}

impl Element {
    pub(crate) fn new(set: &str, key: String, tag: &str) -> Element {
        Element {
            set: set.into(),
            key,
            data: None,
            tag: tag.into(),
        }
    }
}

impl Firewall<'_> {
    /// Adds elements, and the table if it is not there yet, all or nothing.
    pub(crate) fn add(&self, elements: &[Element]) -> Result<(), PluginError> {
        let mut script = String::new();
        for Element { set, key, data, tag } in elements {
            let data = data.as_ref().map(|data| format!(" : {data}")).unwrap_or_default();
            let _ = writeln!(
                script,
                "add element inet {} {set} {{ {key} comment \"{tag}\"{data} }}",
                self.table
            );
        }
        self.apply(true, script)?;
        added::remember(&self.script, self.table, elements);
        Ok(())
    }

    /// All elements; `None` if there is no table.
    pub(crate) fn list(&self) -> Result<Option<Vec<Element>>, PluginError> {
        let turn = batch::turn();
        let output = nft(&["-j", "list", "table", "inet", self.table], self.input("")?)?;
        drop(turn);
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return match complaint.contains("No such file or directory") {
                true => Ok(None),
                false => Err(refused(&output)),
            };
        }
        parse_table(&output.stdout).map(Some).map_err(|problem| {
            PluginError::new(
                code::KERNEL,
                format!("nft listed the table inet {} oddly: {problem}", self.table),
            )
        })
    }

    /// Adds those of the elements that are missing.
    pub(crate) fn restore(&self, elements: &[Element]) -> Result<(), PluginError> {
        let present = self.list()?.unwrap_or_default();
        let present: HashSet<_> = present.iter().map(|e| (&e.set, &e.key)).collect();
        let missing = elements.iter().filter(|e| !present.contains(&(&e.set, &e.key)));
        let missing: Vec<Element> = missing.cloned().collect();
        if !missing.is_empty() {
            self.add(&missing)?;
        }
        added::remember(&self.script, self.table, elements);
        Ok(())
    }

    /// Removes what one attachment has in these sets and returns it.
    pub(crate) fn remove_of(&self, sets: &[&str], tag: &str) -> Result<Vec<Element>, PluginError> {
        let known = added::of(&self.script, self.table, sets, tag);
        if !known.is_empty() && self.apply(false, self.deletion(&known)).is_ok() {
            added::forget(&self.script, self.table, &known);
            return Ok(known);
        }
        self.remove(sets, |of| of == tag)
    }

    /// Removes what one attachment has in these sets, if this process has added it and knows of other elements, so that the table
    /// stays whoever else removes some meanwhile. Returns whether that was so.
    pub(crate) fn remove_beside_others(&self, sets: &[&str], tag: &str) -> bool {
        let known = added::take_beside_others(&self.script, self.table, sets, tag);
        known.is_some_and(|known| self.apply(false, self.deletion(&known)).is_ok())
    }

    fn deletion(&self, elements: &[Element]) -> String {
        let mut script = String::new();
        for Element { set, key, .. } in elements {
            let _ = writeln!(script, "delete element inet {} {set} {{ {key} }}", self.table);
        }
        script
    }

    /// Removes the elements of these sets that `of` picks and returns them. The table goes with its last element.
    pub(crate) fn remove(
        &self,
        sets: &[&str],
        of: impl Fn(&str) -> bool,
    ) -> Result<Vec<Element>, PluginError> {
        let Some(elements) = self.list()? else {
            return Ok(Vec::new());
        };
        let picked = |e: &Element| sets.contains(&e.set.as_str()) && of(&e.tag);
        let (gone, stay): (Vec<_>, Vec<_>) = elements.into_iter().partition(picked);
        let script = match stay.is_empty() {
            true => format!("delete table inet {}\n", self.table),
            false => self.deletion(&gone),
        };
        if !script.is_empty() {
            self.apply(false, script)?;
        }
        added::forget(&self.script, self.table, &gone);
        Ok(gone)
    }

    /// Has `nft` do what a script says, or nothing of it; with the table and its rules first, if they are `needed`. Scripts that
    /// come while it works for others are done together by its next run.
    fn apply(&self, needed: bool, script: String) -> Result<(), PluginError> {
        let place = batch::Place::new(&self.script, self.table);
        batch::apply(&place, batch::Script { needed, text: script }, |scripts| {
            self.run(scripts)
        })
    }

    fn run(&self, scripts: &[batch::Script]) -> Result<(), PluginError> {
        let mut text = String::new();
        if scripts.iter().any(|script| script.needed) {
            text = self.skeleton();
        }
        text.extend(scripts.iter().map(|script| script.text.as_str()));
        let output = nft(&["-f", "-"], self.input(&text)?)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(refused(&output)),
        }
    }

    fn input(&self, script: &str) -> Result<File, PluginError> {
        process::locked_input(&self.script, script.as_bytes(), TIMEOUT).map_err(|e| {
            PluginError::new(
                code::IO_FAILURE,
                format!("can't write {}: {e}", self.script.display()),
            )
        })
    }

    /// The table with its rules, whether it was there before or not.
    fn skeleton(&self) -> String {
        let mut script = String::new();
        for line in SKELETON.lines() {
            let _ = writeln!(script, "{}", line.replace("TABLE", self.table));
        }
        script
    }
}

/// `guard` is for `route_localnet`, which host ports on 127.0.0.1 need: without it, pods and neighbours on the wire
/// could reach what listens on the host's loopback addresses only.
const SKELETON: &str = "\
add table inet TABLE
add set inet TABLE masq4 { type ipv4_addr; }
add set inet TABLE masq6 { type ipv6_addr; }
add set inet TABLE local4 { type ipv4_addr . ipv4_addr; flags interval; }
add set inet TABLE local6 { type ipv6_addr . ipv6_addr; flags interval; }
add set inet TABLE hairpin4 { type ipv4_addr . ipv4_addr; flags interval; }
add set inet TABLE hairpin6 { type ipv6_addr . ipv6_addr; flags interval; }
add map inet TABLE port4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet TABLE port6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
add map inet TABLE port4_any { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet TABLE port6_any { type inet_proto . inet_service : ipv6_addr . inet_service; }
add chain inet TABLE guard { type filter hook prerouting priority -300; }
add chain inet TABLE prerouting { type nat hook prerouting priority -100; }
add chain inet TABLE output { type nat hook output priority -100; }
add chain inet TABLE postrouting { type nat hook postrouting priority 100; }
add chain inet TABLE hostports
flush chain inet TABLE guard
flush chain inet TABLE prerouting
flush chain inet TABLE output
flush chain inet TABLE postrouting
flush chain inet TABLE hostports
add rule inet TABLE guard iifname != \"lo\" ip daddr 127.0.0.0/8 drop
add rule inet TABLE prerouting fib daddr type local goto hostports
add rule inet TABLE output fib daddr type local goto hostports
add rule inet TABLE hostports meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @port4
add rule inet TABLE hostports meta nfproto ipv4 dnat ip to meta l4proto . th dport map @port4_any
add rule inet TABLE hostports ip6 daddr != ::1 dnat ip6 to ip6 daddr . meta l4proto . th dport map @port6
add rule inet TABLE hostports ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @port6_any
add rule inet TABLE postrouting ct status dnat ip daddr . ip saddr @hairpin4 masquerade
add rule inet TABLE postrouting ct status dnat ip6 daddr . ip6 saddr @hairpin6 masquerade
add rule inet TABLE postrouting ip saddr @masq4 ip daddr != 224.0.0.0/4 ip saddr . ip daddr != @local4 masquerade
add rule inet TABLE postrouting ip6 saddr @masq6 ip6 daddr != ff00::/8 ip6 saddr . ip6 daddr != @local6 masquerade
";

/// Whether `nft` can be run at all.
pub(crate) fn available() -> Result<(), PluginError> {
    look(&["--version"]).map(drop)
}

/// All chains of the host, as `nft -j` lists them.
pub(crate) fn list_chains() -> Result<Value, PluginError> {
    let text = look(&["-j", "list", "chains"])?;
    serde_json::from_slice(&text)
        .map_err(|e| PluginError::new(code::KERNEL, format!("nft listed the chains oddly: {e}")))
}

/// A table of someone else, in `nft`'s words.
pub(crate) fn show_table(family: &str, table: &str) -> Result<String, PluginError> {
    look(&["list", "table", family, table]).map(|text| String::from_utf8_lossy(&text).into_owned())
}

fn look(args: &[&str]) -> Result<Vec<u8>, PluginError> {
    let nothing = process::input(b"").map_err(|e| PluginError::new(code::IO_FAILURE, e.to_string()))?;
    let output = nft(args, nothing)?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(refused(&output)),
    }
}

/// Whose an element is: network, container and interface. It has to fit into a comment (128 bytes).
pub(crate) fn tag(network: &str, container_id: &str, ifname: &str) -> String {
    let attachment = format!("{container_id}/{ifname}");
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    match attachment.len() <= 90 && attachment.chars().all(safe) {
        true => format!("{}{attachment}", network_prefix(network)),
        false => format!("{}#{}", network_prefix(network), short_hash(&attachment, 20)),
    }
}

/// How the tags of all elements of a network start.
pub(crate) fn network_prefix(network: &str) -> String {
    match network.len() <= 32 {
        true => format!("{network}/"),
        false => format!("#{}/", short_hash(network, 10)),
    }
}

/// The first `bytes` bytes of the SHA-256 of a text, in hexadecimal digits.
pub(crate) fn short_hash(text: &str, bytes: usize) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn nft(args: &[&str], input: File) -> Result<Output, PluginError> {
    let mut command = Command::new("nft");
    command.args(args).env("LC_ALL", "C");
    process::run(&mut command, input, TIMEOUT.into(), MAX_LIST).map_err(|e| match e {
        RunError::Spawn(e) if e.kind() == io::ErrorKind::NotFound => PluginError::new(
            code::MISSING_PROGRAM,
            "the program nft is not installed, and pods need it for host ports and for their way out of the node; \
             install the package nftables",
        ),
        RunError::Spawn(e) | RunError::Io(e) => {
            PluginError::new(code::KERNEL, format!("the program nft can't be run: {e}"))
        }
        RunError::Timeout | RunError::CalledOff => PluginError::new(code::KERNEL, "the program nft did not finish and was killed"),
        RunError::TooMuchOutput => PluginError::new(code::KERNEL, "the program nft printed too much"),
    })
}

fn refused(output: &Output) -> PluginError {
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first = complaint
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no reason given")
        .trim();
    let hint = match first.contains("Operation not permitted") {
        true => "; this needs root (CAP_NET_ADMIN)",
        false => "",
    };
    PluginError::new(
        code::KERNEL,
        format!("nft refused the firewall rules: {first}{hint}"),
    )
}

/// Reads what `nft -j list table` prints (libnftables-json(5)).
fn parse_table(text: &[u8]) -> Result<Vec<Element>, String> {
    let listing: Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let objects = listing["nftables"].as_array().ok_or("no list of objects")?;
    let mut elements = Vec::new();
    for set in objects
        .iter()
        .filter_map(|o| o.get("set").or_else(|| o.get("map")))
    {
        let name = set["name"].as_str().ok_or("a set without a name")?;
        for element in set["elem"].as_array().into_iter().flatten() {
            // A map's element is a pair of key and data.
            let (key, data) = match element {
                Value::Array(pair) => (pair.first().unwrap_or(&Value::Null), pair.get(1)),
                key => (key, None),
            };
            let (value, tag) = match key.get("elem") {
                Some(elem) => (&elem["val"], elem["comment"].as_str().unwrap_or_default()),
                None => (key, ""),
            };
            elements.push(Element {
                set: name.to_owned(),
                key: show(value)?,
                data: data.map(show).transpose()?,
                tag: tag.to_owned(),
            });
        }
    }
    Ok(elements)
}

/// An expression in the words that `nft` reads.
fn show(value: &Value) -> Result<String, String> {
    if let Some(parts) = value.get("concat").and_then(Value::as_array) {
        return Ok(parts.iter().map(show).collect::<Result<Vec<_>, _>>()?.join(" . "));
    }
    if let Some(prefix) = value.get("prefix") {
        return Ok(format!("{}/{}", show(&prefix["addr"])?, show(&prefix["len"])?));
    }
    if let Some([from, to]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Ok(format!("{}-{}", show(from)?, show(to)?));
    }
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("an expression that is not known: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_back() {
        let listing = br#"{"nftables": [{"metainfo": {}}, {"table": {"name": "berth"}},
            {"set": {"name": "masq4", "elem": ["10.0.0.9", {"elem": {"val": "10.0.0.2", "comment": "n/a/eth0"}}]}},
            {"set": {"name": "local4", "elem": [{"elem": {"val": {"concat": ["10.0.0.2",
                {"prefix": {"addr": "10.0.0.0", "len": 16}}]}, "comment": "n/a/eth0"}}]}},
            {"map": {"name": "port4_any", "elem": [[{"elem": {"val": {"concat": ["tcp", 81]}, "comment": "n/a/eth0"}},
                {"concat": ["10.0.0.2", 8080]}]]}},
            {"map": {"name": "empty"}}]}"#;
        let read = parse_table(listing).unwrap();
        let shown: Vec<_> = read
            .iter()
            .map(|e| (e.set.as_str(), e.key.as_str(), e.data.as_deref(), e.tag.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("masq4", "10.0.0.9", None, ""),
                ("masq4", "10.0.0.2", None, "n/a/eth0"),
                ("local4", "10.0.0.2 . 10.0.0.0/16", None, "n/a/eth0"),
                ("port4_any", "tcp . 81", Some("10.0.0.2 . 8080"), "n/a/eth0"),
            ]
        );
        for odd in [
            &b""[..],
            b"[]",
            b"{}",
            br#"{"nftables": [{"set": {}}]}"#,
            br#"{"nftables": [{"set": {"name": "x", "elem": [{"elem": {"val": null}}]}}]}"#,
        ] {
            assert!(parse_table(odd).is_err(), "{}", String::from_utf8_lossy(odd));
        }
    }

    #[test]
    fn tags_fit_into_a_comment_and_stay_apart() {
        let long = "x".repeat(200);
        for (network, id, ifname) in [
            ("n", "a", "eth0"),
            (&long, &long, "eth0"),
            ("n", "a", "e\"; drop"),
        ] {
            let tag = tag(network, id, ifname);
            assert!(tag.len() < 128 && !tag.contains('"'), "{tag}");
            assert!(tag.starts_with(&network_prefix(network)), "{tag}");
        }
        assert_ne!(tag(&long, &long, "eth0"), tag(&long, &long, "eth1"));
    }
}
