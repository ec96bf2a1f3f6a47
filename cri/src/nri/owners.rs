//! Which plugin set what: no two may set the same.

use super::NriError;
use super::api::{CompoundFieldOwners, Field, OwningPlugins};

/// An owner that has cleared a field bears this mark: it alone may set the field anew.
const CLEARED: char = '-';

/// The owners of the fields of all containers that one request is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners(pub(super) OwningPlugins);

impl Owners {
    /// `plugin` sets a field of a container.
    pub(super) fn claim(&mut self, container: &str, field: Field, plugin: &str) -> Result<(), NriError> {
        let simple = &mut self.0.owners.entry(container.to_owned()).or_default().simple;
        let owner = simple.get(&(field as i32)).map(String::as_str);
        free_for(owner, plugin, || described(field, ""))?;
        simple.insert(field as i32, plugin.to_owned());
        Ok(())
    }

    /// `plugin` sets one entry of a field that has many.
    pub(super) fn claim_entry(
        &mut self,
        container: &str,
        field: Field,
        entry: &str,
        plugin: &str,
    ) -> Result<(), NriError> {
        let entries = self.entries(container, field);
        let owner = entries.owners.get(entry).map(String::as_str);
        free_for(owner, plugin, || described(field, entry))?;
        entries.owners.insert(entry.to_owned(), plugin.to_owned());
        Ok(())
    }

    /// `plugin` takes a field away that another one may have set.
    pub(super) fn clear(&mut self, container: &str, field: Field, plugin: &str) {
        let owners = self.0.owners.entry(container.to_owned()).or_default();
        owners.simple.insert(field as i32, format!("{CLEARED}{plugin}"));
    }

    /// `plugin` takes an entry away that another one may have set.
    pub(super) fn clear_entry(&mut self, container: &str, field: Field, entry: &str, plugin: &str) {
        let entries = self.entries(container, field);
        entries
            .owners
            .insert(entry.to_owned(), format!("{CLEARED}{plugin}"));
    }

    /// `plugin` adds to a field that any number of plugins may add to.
    pub(super) fn join(&mut self, container: &str, field: Field, plugin: &str) {
        let owners = self.0.owners.entry(container.to_owned()).or_default();
        let names = owners.simple.entry(field as i32).or_default();
        if !names.is_empty() {
            names.push(',');
        }
        names.push_str(plugin);
    }

    fn entries(&mut self, container: &str, field: Field) -> &mut CompoundFieldOwners {
        let owners = self.0.owners.entry(container.to_owned()).or_default();
        owners.compound.entry(field as i32).or_default()
    }
}

fn free_for(owner: Option<&str>, plugin: &str, what: impl Fn() -> String) -> Result<(), NriError> {
    let Some(owner) = owner else { return Ok(()) };
    let first = match owner.strip_prefix(CLEARED) {
        Some(clearer) if clearer == plugin => return Ok(()),
        Some(clearer) => clearer,
        None => owner,
    };
    Err(NriError::Conflict {
        first: first.to_owned(),
        second: plugin.to_owned(),
        what: what(),
    })
}

/// A field as NRI names it, and which one of its entries.
fn described(field: Field, entry: &str) -> String {
    let name = field.as_str_name();
    if entry.is_empty() {
        name.to_owned()
    } else {
        format!("{name} {entry:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_both_plugins_and_the_field() {
        let mut owners = Owners::default();
        owners.claim_entry("c", Field::Env, "A", "00-first").unwrap();
        owners.claim_entry("c", Field::Env, "B", "10-second").unwrap();
        let error = owners.claim_entry("c", Field::Env, "A", "10-second").unwrap_err();
        assert_eq!(
            error.to_string(),
            "The NRI plugins 10-second and 00-first both set Env \"A\"."
        );
        owners.claim("c", Field::MemLimit, "00-first").unwrap();
        owners.claim("d", Field::MemLimit, "10-second").unwrap();
        owners.claim("c", Field::MemLimit, "10-second").unwrap_err();
    }

    #[test]
    fn who_clears_may_set() {
        let mut owners = Owners::default();
        owners.claim_entry("c", Field::Mounts, "/a", "00-first").unwrap();
        owners.clear_entry("c", Field::Mounts, "/a", "10-second");
        owners
            .claim_entry("c", Field::Mounts, "/a", "20-third")
            .unwrap_err();
        owners.claim_entry("c", Field::Mounts, "/a", "10-second").unwrap();
        owners
            .claim_entry("c", Field::Mounts, "/a", "20-third")
            .unwrap_err();
    }

    #[test]
    fn hooks_are_everybodys() {
        let mut owners = Owners::default();
        owners.join("c", Field::OciHooks, "00-first");
        owners.join("c", Field::OciHooks, "10-second");
        let names = &owners.0.owners["c"].simple[&(Field::OciHooks as i32)];
        assert_eq!(names, "00-first,10-second");
    }
}
