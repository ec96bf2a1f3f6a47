//! What the host's own firewall does to pods.
//!
//! A packet that any table drops is dropped, whatever berth's own table says, and other people's tables are not
//! berth's to change. But who is not told would look for the fault everywhere else.

use std::collections::HashSet;

use serde_json::Value;

use crate::firewall;

/// What to say about chains that drop what is forwarded and know nothing of the bridge; nothing if `nft` can't be
/// asked. `bridge` is an interface's name.
pub(crate) fn about_forwarding(bridge: &str) -> Vec<String> {
    let Ok(listing) = firewall::list_chains() else {
        return Vec::new();
    };
    let mentions = |(family, table): &(String, String)| {
        firewall::show_table(family, table).is_ok_and(|text| text.contains(&format!("\"{bridge}\"")))
    };
    let chains = dropping_chains(&listing);
    let silent: HashSet<_> = chains
        .iter()
        .map(|c| (c.family.clone(), c.table.clone()))
        .filter(|t| !mentions(t))
        .collect();
    let of_silent = chains
        .iter()
        .filter(|c| silent.contains(&(c.family.clone(), c.table.clone())));
    of_silent.map(|chain| chain.advice(bridge)).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
}

impl Chain {
    fn advice(&self, bridge: &str) -> String {
        let Chain { family, table, name } = self;
        let rule = |direction| format!("nft insert rule {family} {table} {name} {direction} {bridge} accept");
        format!(
            "the host's firewall drops forwarded packets (chain {name} of table {family} {table}), so pods may reach \
             nothing but this host; to let them, run: {}; {}",
            rule("iifname"),
            rule("oifname")
        )
    }
}

/// Base chains of the forward hook whose policy is to drop.
fn dropping_chains(listing: &Value) -> Vec<Chain> {
    let chains = listing["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|object| object.get("chain"));
    let drops = chains.filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop");
    drops
        .filter_map(|chain| {
            let text = |field: &str| chain[field].as_str().map(str::to_owned);
            Some(Chain {
                family: text("family")?,
                table: text("table")?,
                name: text("name")?,
            })
        })
        .filter(|chain| matches!(chain.family.as_str(), "ip" | "inet"))
        .collect()
}
