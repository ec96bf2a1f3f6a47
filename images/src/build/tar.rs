//! Writing tar archives (pax).

use super::{Content, File};

const BLOCK: usize = 512;

/// The archive of these files, in this order.
pub(super) fn write(files: &[File]) -> Vec<u8> {
    let mut archive = Vec::new();
    for file in files {
        let (flag, link, contents): (u8, &str, &[u8]) = match &file.content {
            Content::Regular(bytes) => (b'0', "", bytes),
            Content::Directory => (b'5', "", &[]),
            Content::Symlink(target) => (b'2', target, &[]),
            Content::HardLink(target) => (b'1', target, &[]),
        };
        let mut pax = Vec::new();
        for (key, value) in [("path", file.path.as_str()), ("linkpath", link)] {
            if value.len() > 100 {
                pax.extend(record(key, value));
            }
        }
        if !pax.is_empty() {
            archive.extend(header(file, b'x', "", pax.len()));
            append(&mut archive, &pax);
        }
        archive.extend(header(file, flag, link, contents.len()));
        append(&mut archive, contents);
    }
    archive.extend([0; 2 * BLOCK]);
    archive
}

fn append(archive: &mut Vec<u8>, contents: &[u8]) {
    archive.extend(contents);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn header(file: &File, flag: u8, link: &str, size: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block[..100], file.path.as_bytes());
    put(&mut block[100..108], format!("{:07o}", file.mode).as_bytes());
    put(
        &mut block[108..116],
        format!("{:07o}", file.uid & 0o7_777_777).as_bytes(),
    );
    put(
        &mut block[116..124],
        format!("{:07o}", file.gid & 0o7_777_777).as_bytes(),
    );
    put(&mut block[124..136], format!("{size:011o}").as_bytes());
    put(&mut block[136..148], b"00000000000");
    block[156] = flag;
    put(&mut block[157..257], link.as_bytes());
    put(&mut block[257..265], b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    put(&mut block[148..156], format!("{sum:06o}\0").as_bytes());
    block
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let n = bytes.len().min(field.len());
    field[..n].copy_from_slice(&bytes[..n]);
}

/// `length key=value\n`, where the length counts its own digits.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}
