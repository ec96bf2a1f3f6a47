//! Who a container's process is: the image's `User`, the pod's `runAsUser`, and the image's own `/etc/passwd`.
//!
//! The files are read from the image's layers before the container exists, each opened beneath its layer's root, so that
//! a link in the image can't lead to the host's.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::engine::EngineError;
use crate::types::{ContainerSecurity, SupplementalGroupsPolicy};

/// Files of users and groups longer than this are not read on.
const MAX_FILE: u64 = 4 << 20;

/// A process's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All its groups, its own among them, as every runtime of the field has it.
    pub(crate) additional_gids: Vec<u32>,
    /// From passwd(5), for `HOME`.
    pub(crate) home: Option<String>,
}

/// What decides a container's ids.
pub(crate) struct IdentityRequest<'a> {
    /// The image's `User`: empty, `user`, `uid`, `user:group`…
    pub(crate) image_user: &'a str,
    pub(crate) security: &'a ContainerSecurity,
}

/// The user and group files of an image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    /// Reads them from an image's layers, the topmost first.
    pub(crate) fn read(layers: &[PathBuf]) -> io::Result<Self> {
        Ok(Self {
            passwd: read_text(layers, "etc/passwd")?,
            group: read_text(layers, "etc/group")?,
        })
    }

    /// Settles a container's ids. `runAsUser` and a user's name replace the image's user and, as upstream does, keep
    /// that user's own group unless `runAsGroup` names another.
    pub(crate) fn resolve(&self, request: &IdentityRequest<'_>) -> Result<Identity, EngineError> {
        let security = request.security;
        let (user, group) = match request.image_user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (request.image_user, None),
        };
        let named = !security.run_as_username.is_empty();
        let mut identity = match security.run_as_user {
            _ if named => self.by_name(&security.run_as_username)?,
            Some(uid) => self.by_uid(to_id("runAsUser", uid)?),
            None => self.by_name_or_uid(user)?,
        };
        if let Some(group) = group.filter(|_| security.run_as_user.is_none() && !named) {
            identity.gid = self.group_id(group)?;
        }
        if let Some(gid) = security.run_as_group {
            identity.gid = to_id("runAsGroup", gid)?;
        }
        if security.supplemental_groups_policy == SupplementalGroupsPolicy::Strict {
            identity.additional_gids.clear();
        }
        for gid in &security.supplemental_groups {
            identity.additional_gids.push(to_id("supplementalGroups", *gid)?);
        }
        identity.additional_gids.push(identity.gid);
        identity.additional_gids.sort_unstable();
        identity.additional_gids.dedup();
        Ok(identity)
    }

    fn by_name(&self, name: &str) -> Result<Identity, EngineError> {
        let account = self.accounts().find(|account| account.name == name);
        account.map(|account| self.of_account(&account)).ok_or_else(|| {
            EngineError::InvalidArgument(format!("The user {name:?} is not in the image's /etc/passwd."))
        })
    }

    fn by_uid(&self, uid: u32) -> Identity {
        match self.accounts().find(|account| account.uid == uid) {
            Some(account) => self.of_account(&account),
            None => Identity {
                uid,
                ..Identity::default()
            },
        }
    }

    fn by_name_or_uid(&self, user: &str) -> Result<Identity, EngineError> {
        if user.is_empty() {
            return Ok(self.by_uid(0));
        }
        if let Some(account) = self.accounts().find(|account| account.name == user) {
            return Ok(self.of_account(&account));
        }
        user.parse().map(|uid| self.by_uid(uid)).map_err(|_| {
            EngineError::InvalidArgument(format!(
                "The image's user {user:?} is not in the image's /etc/passwd; set securityContext.runAsUser to a number."
            ))
        })
    }

    fn of_account(&self, account: &Account<'_>) -> Identity {
        let member = |line: &str| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            fields
                .next()?
                .split(',')
                .any(|name| name.trim() == account.name)
                .then_some(gid)
        };
        Identity {
            uid: account.uid,
            gid: account.gid,
            additional_gids: self.group.lines().filter_map(member).collect(),
            home: Some(account.home.to_owned()).filter(|home| !home.is_empty()),
        }
    }

    fn group_id(&self, group: &str) -> Result<u32, EngineError> {
        let named = self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(group))
                .then(|| fields.nth(1)?.parse().ok())
                .flatten()
        });
        named.or_else(|| group.parse().ok()).ok_or_else(|| {
            EngineError::InvalidArgument(format!(
                "The image's group {group:?} is not in the image's /etc/group; set securityContext.runAsGroup to a number."
            ))
        })
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields[..] else {
                return None;
            };
            Some(Account {
                name,
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home,
            })
        })
    }
}

pub(crate) fn to_id(field: &str, value: i64) -> Result<u32, EngineError> {
    u32::try_from(value).map_err(|_| {
        EngineError::InvalidArgument(format!("{field} {value} is not between 0 and 4294967295."))
    })
}

/// The file as the stacked layers show it; an image without it has an empty one.
fn read_text(layers: &[PathBuf], name: &str) -> io::Result<String> {
    for layer in layers {
        match open_in(layer, name)? {
            Found::File(file) => {
                let mut bytes = Vec::new();
                file.take(MAX_FILE).read_to_end(&mut bytes)?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            Found::Whiteout => break,
            Found::Nothing => {}
        }
    }
    Ok(String::new())
}

enum Found {
    File(File),
    /// A layer deletes what lower layers have.
    Whiteout,
    Nothing,
}

fn open_in(layer: &Path, name: &str) -> io::Result<Found> {
    let root = File::open(layer)?;
    let look = |flags| {
        openat2(
            &root,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )
    };
    // A look without opening: the name may be a device or a pipe, whose opening has effects.
    let found = match look(OFlags::PATH) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Found::File(File::from(look(OFlags::RDONLY | OFlags::NONBLOCK)?))),
        FileType::CharacterDevice if stat.st_rdev == 0 => Ok(Found::Whiteout),
        _ => Ok(Found::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44::/srv:\nbroken\n".into(),
            group: "root:x:0:\nweb:x:44:\nlogs:x:55:web,other\n".into(),
        }
    }

    fn resolve(image_user: &str, security: &ContainerSecurity) -> Result<Identity, EngineError> {
        accounts().resolve(&IdentityRequest { image_user, security })
    }

    fn plain(image_user: &str) -> Result<Identity, EngineError> {
        resolve(image_user, &ContainerSecurity::default())
    }

    fn ids(identity: &Identity) -> Ids<'_> {
        (identity.uid, identity.gid, &identity.additional_gids)
    }

    type Ids<'a> = (u32, u32, &'a [u32]);

    #[test]
    fn the_images_user_may_have_many_forms() {
        let table: [(&str, Ids<'_>); 7] = [
            ("", (0, 0, &[0])),
            ("root", (0, 0, &[0])),
            ("web", (33, 44, &[44, 55])),
            ("33", (33, 44, &[44, 55])),
            ("1000", (1000, 0, &[0])),
            ("web:logs", (33, 55, &[55])),
            ("1000:1001", (1000, 1001, &[1001])),
        ];
        for (user, expected) in table {
            assert_eq!(ids(&plain(user).unwrap()), expected, "{user:?}");
        }
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let security = ContainerSecurity {
            run_as_user: Some(33),
            run_as_group: Some(7),
            supplemental_groups: vec![9, 7],
            ..Default::default()
        };
        let identity = resolve("nobody-knows:them", &security).unwrap();
        assert_eq!(ids(&identity), (33, 7, &[7, 9, 55][..]));
        assert_eq!(identity.home.as_deref(), Some("/srv"));
    }

    #[test]
    fn a_user_can_be_named() {
        let security = |name: &str| ContainerSecurity {
            run_as_username: name.to_owned(),
            run_as_user: Some(4711),
            ..Default::default()
        };
        let identity = resolve("root:root", &security("web")).unwrap();
        assert_eq!(ids(&identity), (33, 44, &[44, 55][..]));
        // A number is no name, unless somebody is called that.
        for name in ["ghost", "33"] {
            let error = resolve("", &security(name)).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn strictly_only_the_groups_that_are_asked_for() {
        let security = ContainerSecurity {
            run_as_user: Some(33),
            supplemental_groups: vec![1234],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict,
            ..Default::default()
        };
        assert_eq!(ids(&resolve("", &security).unwrap()), (33, 44, &[44, 1234][..]));
    }

    #[test]
    fn an_unknown_user_is_refused_by_name() {
        let error = plain("ghost").unwrap_err().to_string();
        assert!(
            error.contains("\"ghost\"") && error.contains("runAsUser"),
            "{error}"
        );
        let error = plain("web:ghosts").unwrap_err().to_string();
        assert!(error.contains("\"ghosts\""), "{error}");
    }

    #[test]
    fn a_link_in_the_image_stays_in_the_image() {
        let layer = tempfile::tempdir().unwrap();
        std::fs::create_dir(layer.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", layer.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/group", layer.path().join("etc/group")).unwrap();
        let accounts = Accounts::read(&[layer.path().to_owned()]).unwrap();
        assert_eq!((accounts.passwd.as_str(), accounts.group.as_str()), ("", ""));
    }

    #[test]
    fn the_topmost_layer_wins() {
        let (top, bottom) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (layer, text) in [(&top, "top"), (&bottom, "bottom")] {
            std::fs::create_dir(layer.path().join("etc")).unwrap();
            std::fs::write(layer.path().join("etc/passwd"), text).unwrap();
        }
        std::fs::write(bottom.path().join("etc/group"), "group").unwrap();
        let accounts = Accounts::read(&[top.path().to_owned(), bottom.path().to_owned()]).unwrap();
        assert_eq!(
            (accounts.passwd.as_str(), accounts.group.as_str()),
            ("top", "group")
        );
    }
}
