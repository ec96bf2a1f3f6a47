//! A file system whose server stops to listen, as that of a network file system does: its root is there, and whoever looks
//! for something in it waits until they are killed.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// How long the server waits at a time.
const TURN: Duration = Duration::from_millis(20);

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;

/// Mounted for as long as it is held.
pub struct Hanging {
    directory: CString,
    hangs: Arc<AtomicBool>,
}

impl Hanging {
    /// Mounts it. `None` where there is no FUSE.
    pub fn mount(directory: &Path) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let directory = CString::new(directory.to_str().unwrap()).unwrap();
        let options = CString::new(options).unwrap();
        mount(
            c"hanging",
            &directory,
            c"fuse",
            MountFlags::empty(),
            Some(&*options),
        )
        .unwrap();
        let hangs = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&hangs);
        std::thread::spawn(move || serve(device, &told));
        Some(Self { directory, hangs })
    }

    /// From now on nobody gets an answer.
    pub fn hang(&self) {
        self.hangs.store(true, Ordering::SeqCst);
        std::thread::sleep(2 * TURN);
    }
}

impl Drop for Hanging {
    /// Whoever still waits goes on.
    fn drop(&mut self) {
        unmount(&self.directory, UnmountFlags::FORCE | UnmountFlags::DETACH).unwrap();
    }
}

fn serve(mut device: File, hangs: &AtomicBool) {
    let mut request = vec![0; 1 << 20];
    loop {
        let turn = Timespec {
            tv_sec: 0,
            tv_nsec: TURN.subsec_nanos().into(),
        };
        let ready = poll(&mut [PollFd::new(&device, PollFlags::IN)], Some(&turn)).unwrap();
        if hangs.load(Ordering::SeqCst) {
            // The device stays open: whoever asks is not told that nobody listens.
            std::mem::forget(device);
            return;
        }
        if ready == 0 {
            continue;
        }
        let Ok(length) = device.read(&mut request) else {
            return;
        };
        let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let (operation, unique) = (number(4), request[8..16].to_vec());
        assert!(length >= 40, "a request has a header");
        let (error, answer) = match operation {
            FORGET | BATCH_FORGET => continue,
            // Version 7.31, the kernel's wishes, and nothing that is optional.
            INIT => (
                0,
                [&7_u32.to_ne_bytes()[..], &31_u32.to_ne_bytes(), &[0; 56]].concat(),
            ),
            // For as long as anybody wants to believe it: a directory, which is root's.
            GETATTR => {
                let mut attributes = vec![0; 104];
                attributes[..8].copy_from_slice(&3600_u64.to_ne_bytes());
                attributes[16] = 1;
                attributes[76..80].copy_from_slice(&0o40_755_u32.to_ne_bytes());
                attributes[80] = 2;
                (0, attributes)
            }
            _ => (-rustix::io::Errno::NOSYS.raw_os_error(), Vec::new()),
        };
        let total = u32::try_from(16 + answer.len()).unwrap();
        let header = [&total.to_ne_bytes()[..], &i32::to_ne_bytes(error), &unique].concat();
        let _ = device.write(&[header, answer].concat());
    }
}
