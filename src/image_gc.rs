//! The removal of images that nobody uses, by those programs of berth that run for long and have no kubelet that does it.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use berth_images::{Collected, Store, Unwanted};
use berth_kubelet::defaults::{
    IMAGE_GC_HIGH_THRESHOLD_PERCENT, IMAGE_GC_LOW_THRESHOLD_PERCENT, IMAGE_GC_PERIOD,
};
use berth_kubelet::standalone::parse_duration;
use clap::Args;
use clap::builder::RangedU64ValueParser;

/// When the file system with the images is full enough to remove some.
#[derive(Args, Clone, Debug)]
pub(crate) struct ImageGcArgs {
    /// Remove images that nobody uses once the file system with the images is this full, in percent; 100 is never
    #[arg(long, value_name = "PERCENT", default_value_t = IMAGE_GC_HIGH_THRESHOLD_PERCENT, value_parser = RangedU64ValueParser::<u8>::new().range(0..=100))]
    image_gc_high_threshold: u8,

    /// Remove those that were not used for the longest time first, until it is this full
    #[arg(long, value_name = "PERCENT", default_value_t = IMAGE_GC_LOW_THRESHOLD_PERCENT, value_parser = RangedU64ValueParser::<u8>::new().range(0..=100))]
    image_gc_low_threshold: u8,

    /// Keep images that came in this last time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2m")]
    image_minimum_gc_age: Duration,

    /// Remove images that nobody used for this long, however empty the file system is; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0")]
    image_maximum_gc_age: Duration,
}

impl ImageGcArgs {
    /// Whether the thresholds fit together.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        if low < high || high == 100 {
            return Ok(());
        }
        Err(format!(
            "--image-gc-low-threshold is {low}, and must be less than --image-gc-high-threshold, which is {high}."
        ))
    }
}

/// Removes images when there is need, now and every [`IMAGE_GC_PERIOD`]. `say` is told what is removed.
pub(crate) async fn run(
    store: Store,
    args: ImageGcArgs,
    pinned: Vec<String>,
    say: impl Fn(&str) + Send + Sync + 'static,
) -> Infallible {
    loop {
        let (store, args, pinned) = (store.clone(), args.clone(), pinned.clone());
        let round = tokio::task::spawn_blocking(move || collect(&store, &args, pinned)).await;
        match round {
            Ok(Ok(said)) => said.iter().for_each(|text| say(text)),
            Ok(Err(error)) => say(&format!("images can't be removed: {error}")),
            Err(error) => say(&format!("the removal of images broke off: {error}")),
        }
        tokio::time::sleep(IMAGE_GC_PERIOD).await;
    }
}

/// One round. Returns what a log is to say.
fn collect(store: &Store, args: &ImageGcArgs, pinned: Vec<String>) -> Result<Vec<String>, String> {
    let mut said = Vec::new();
    let which = |unused_for, bytes| Unwanted {
        named: true,
        min_age: args.image_minimum_gc_age,
        unused_for,
        pinned: pinned.clone(),
        bytes,
    };
    if !args.image_maximum_gc_age.is_zero() {
        let old = store.collect(&which(args.image_maximum_gc_age, None));
        said.extend(old.map_err(|error| error.to_string())?.iter().map(told));
    }
    let disk = Disk::of(store.root())?;
    let Some(wanted) = disk.to_free(args.image_gc_high_threshold, args.image_gc_low_threshold) else {
        return Ok(said);
    };
    let removed = store
        .collect(&which(Duration::ZERO, Some(wanted)))
        .map_err(|error| error.to_string())?;
    let freed: u64 = removed.iter().map(|image| image.freed).sum();
    said.extend(removed.iter().map(told));
    if freed < wanted {
        said.push(format!(
            "the file system with the images is {}% full, and only {freed} of {wanted} bytes that are to be free again were \
             images that nobody uses",
            disk.used_percent()
        ));
    }
    Ok(said)
}

fn told(image: &Collected) -> String {
    let name = image.names.first().unwrap_or(&image.id);
    format!("removed image {name}, which nobody uses: {} bytes", image.freed)
}

/// How full a file system is.
#[derive(Clone, Copy, Debug)]
struct Disk {
    capacity: u64,
    available: u64,
}

impl Disk {
    fn of(path: &Path) -> Result<Self, String> {
        let found = rustix::fs::statvfs(path)
            .map_err(|errno| format!("how full {} is can't be found out: {errno}", path.display()))?;
        Ok(Disk {
            capacity: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// Rounded up, as upstream counts.
    fn used_percent(self) -> u64 {
        100 - (self.available.saturating_mul(100) / self.capacity.max(1)).min(100)
    }

    /// Bytes that are to be freed; `None` if it is not full enough.
    fn to_free(self, high: u8, low: u8) -> Option<u64> {
        if self.capacity == 0 || high == 100 || self.used_percent() < u64::from(high) {
            return None;
        }
        let free = u128::from(self.capacity) * u128::from(100 - low.min(100)) / 100;
        let free = u64::try_from(free).unwrap_or(u64::MAX);
        Some(free.saturating_sub(self.available)).filter(|bytes| *bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_freed_is_upstream_s() {
        for (available, high, low, expected) in [
            (16, 85, 80, None),
            (15, 85, 80, Some(5)),
            (0, 85, 80, Some(20)),
            (0, 100, 80, None),
            (100, 0, 0, None),
            (40, 0, 0, Some(60)),
        ] {
            let disk = Disk {
                capacity: 100,
                available,
            };
            assert_eq!(disk.to_free(high, low), expected, "{available} {high} {low}");
        }
        let none = Disk {
            capacity: 0,
            available: 0,
        };
        assert_eq!(none.to_free(85, 80), None);
    }
}
