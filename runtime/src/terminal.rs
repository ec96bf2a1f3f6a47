//! Terminals: a pair from the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Uid, fchown, fstatfs, openat, openat2, statat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::error::Doing;
use crate::mount::{attach_to, clone_tree, retry};
use crate::{Error, Result};

/// statfs(2)'s type of a devpts.
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// The device number of `ptmx`.
const PTMX: (u32, u32) = (5, 2);

/// Both ends of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The end that reads what the program writes.
    pub(crate) master: OwnedFd,
    /// The end that the program gets.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// Opens a pair: of the devpts that was just mounted, or of the one that is found at `/dev/pts` below `root`.
    pub(crate) fn open(
        pts: Option<&OwnedFd>,
        root: impl AsFd,
        (width, height): (u16, u16),
        carriage_returns: bool,
    ) -> Result<Terminal> {
        let doing = || "open a terminal of the container's /dev/pts".to_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = match pts {
            Some(pts) => openat(pts, "ptmx", flags, Mode::empty()),
            None => {
                let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                retry(|| openat2(&root, "dev/pts/ptmx", flags, Mode::empty(), inside))
            }
        }
        .doing(doing)?;
        check_is_ptmx(&master)?;
        unlockpt(&master).doing(doing)?;
        let slave = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        );
        let terminal = Terminal {
            slave: slave.doing(doing)?,
            master,
        };
        if !carriage_returns {
            let doing = || "set up the container's terminal".to_owned();
            let mut settings = tcgetattr(&terminal.slave).doing(doing)?;
            settings.output_modes -= OutputModes::ONLCR;
            tcsetattr(&terminal.slave, OptionalActions::Now, &settings).doing(doing)?;
        }
        if width != 0 && height != 0 {
            let size = Winsize {
                ws_row: height,
                ws_col: width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            tcsetwinsize(&terminal.slave, size).doing(|| "set the terminal's size".to_owned())?;
        }
        Ok(terminal)
    }

    /// Shows the terminal as `/dev/console`, at an open place.
    pub(crate) fn attach_as_console(&self, place: impl AsFd) -> Result<()> {
        let doing = || "attach the terminal to /dev/console".to_owned();
        let tree = clone_tree(&self.slave, std::path::Path::new(""), false).doing(doing)?;
        attach_to(&tree, place).doing(doing)
    }

    /// Gives the terminal to the program's user.
    pub(crate) fn give_to(&self, user: Uid) -> Result<()> {
        fchown(&self.slave, Some(user), None).doing(|| "give the terminal to the process's user".to_owned())
    }
}

/// A file of the image with that name could be any device.
fn check_is_ptmx(master: &OwnedFd) -> Result<()> {
    let doing = || "look at the container's /dev/pts/ptmx".to_owned();
    let stat = statat(master, c"", AtFlags::EMPTY_PATH).doing(doing)?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let magic = u64::try_from(fstatfs(master).doing(doing)?.f_type).unwrap_or(0);
    if device == PTMX && magic == DEVPTS_MAGIC {
        return Ok(());
    }
    Err(Error::invalid(
        "process.terminal",
        "the container's /dev/pts is not a devpts; mount one there",
    ))
}

/// Makes an open terminal the controlling one of this session leader.
pub(crate) fn make_controlling(slave: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(slave).doing(|| "make the terminal the controlling one".to_owned())
}

/// The root directory of this process.
pub(crate) fn root_directory() -> Result<OwnedFd> {
    openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(|| "open the root directory".to_owned())
}
