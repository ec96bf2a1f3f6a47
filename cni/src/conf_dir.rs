//! The directory of network configurations, `/etc/cni/net.d`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::conf::{self, NetConfList};
use crate::error::CniError;

/// No configuration is that long.
const MAX_FILE: u64 = 1 << 20;

/// What the directory says.
pub(crate) struct Found {
    /// The first valid network in the order of file names; `None` if there is no file at all.
    pub(crate) network: Option<NetConfList>,
    /// Why files before it were passed over.
    pub(crate) skipped: Vec<CniError>,
}

/// Finds the network, as other runtimes do: the first valid file by name, of those that end with `.conflist`, `.conf`
/// or `.json`. If files are there but none is valid, that is an error: someone meant to configure a network.
pub(crate) fn find(dir: &Path) -> Result<Found, CniError> {
    let mut skipped = Vec::new();
    for file in files(dir, &["conflist", "conf", "json"])? {
        match load(&file, dir) {
            Ok(list) => {
                return Ok(Found {
                    network: Some(list),
                    skipped,
                });
            }
            Err(e) => skipped.push(e),
        }
    }
    match skipped.len() {
        0 => Ok(Found {
            network: None,
            skipped,
        }),
        _ => Err(skipped.swap_remove(0)),
    }
}

fn load(file: &Path, dir: &Path) -> Result<NetConfList, CniError> {
    let text = read(file)?;
    if file.extension().is_some_and(|e| e != "conflist") {
        return conf::parse_single(&text, file);
    }
    let mut list = conf::parse_list(&text, file)?;
    if !list.only_inlined {
        add_plugin_folder(&mut list, dir)?;
    }
    list.require_plugins()
}

/// Plugins that other programs dropped into `<dir>/<network>/` join the end of the chain.
fn add_plugin_folder(list: &mut NetConfList, dir: &Path) -> Result<(), CniError> {
    for file in files(&dir.join(&list.name), &["conf"])? {
        let value: Value = serde_json::from_slice(&read(&file)?).map_err(|e| CniError::Config {
            file: file.clone(),
            field: "the file".into(),
            problem: format!("is no JSON: {e}"),
        })?;
        list.plugins.push(conf::parse_plugin(&value, "", &file)?);
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, CniError> {
    let mut text = Vec::new();
    File::open(file)
        .and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut text))
        .map_err(CniError::state("read", file))?;
    if text.len() as u64 > MAX_FILE {
        return Err(CniError::Config {
            file: file.to_owned(),
            field: "the file".into(),
            problem: format!("is longer than {MAX_FILE} bytes"),
        });
    }
    Ok(text)
}

fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, CniError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CniError::state("read", dir)(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(CniError::state("read", dir))?.path();
        let wanted = path
            .extension()
            .is_some_and(|e| extensions.iter().any(|x| e == *x));
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
