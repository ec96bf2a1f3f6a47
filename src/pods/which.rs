//! Which pods a command is about.

use berth_kubelet::spec;
use berth_kubelet::standalone::{Listing, Places, Selector};
use clap::Args;

use super::in_namespace;

/// Pods by name, by their labels, or all.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct Which {
    /// The pods: NAME or NAMESPACE/NAME
    #[arg(value_name = "POD")]
    pods: Vec<String>,

    /// Those with such labels: app=web,tier!=front or 'tier in (a, b)'
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "pods")]
    selector: Option<Selector>,

    /// Every pod of this node, or of the namespace that is given
    #[arg(short, long, conflicts_with_all = ["pods", "selector"])]
    all: bool,
}

impl Which {
    /// They are named one by one.
    pub(super) fn are_named(&self) -> bool {
        !self.pods.is_empty()
    }

    /// Their names, as commands take them. Those that are named need not be there.
    pub(super) fn names(&self, places: &Places, namespace: Option<&str>) -> Result<Vec<String>, String> {
        names(places, &self.pods, self.selector.as_ref(), namespace)
    }
}

/// The pods that are named, or else those of a namespace and with labels, if these are given, whether they have ended or not.
pub(super) fn names(
    places: &Places,
    named: &[String],
    selector: Option<&Selector>,
    namespace: Option<&str>,
) -> Result<Vec<String>, String> {
    if !named.is_empty() {
        return Ok(named.iter().map(|pod| in_namespace(pod, namespace)).collect());
    }
    let listing = Listing {
        all: true,
        namespace: namespace.map(str::to_owned),
        selector: selector.cloned().unwrap_or_default(),
        ..Listing::default()
    };
    let pods = places.list(&listing).map_err(|error| error.to_string())?;
    let name = |pod: &_| format!("{}/{}", spec::namespace(pod), spec::name(pod));
    let mut names: Vec<String> = pods.iter().map(name).collect();
    names.dedup();
    if let (Some(_), []) = (selector, names.as_slice()) {
        let place = namespace.map_or_else(String::new, |namespace| format!(" of namespace {namespace}"));
        eprintln!("No pod{place} has such labels.");
    }
    Ok(names)
}
