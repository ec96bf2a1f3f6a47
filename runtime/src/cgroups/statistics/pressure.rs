//! Pressure stall information of a group, which the unified hierarchy has (Linux 4.20, if it is switched on).

use nix::errno::Errno;
use serde::{Serialize, Serializer};

use super::super::{Cgroup, CgroupError, Result};

/// How long tasks waited for a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// At least one task waited.
    #[serde(skip_serializing_if = "super::is_default")]
    pub some: PressureLine,
    /// All tasks waited.
    #[serde(skip_serializing_if = "super::is_default")]
    pub full: PressureLine,
}

/// Shares of the last 10, 60 and 300 seconds in percent, and the total in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the kernel's names
pub struct PressureLine {
    pub avg10: Average,
    pub avg60: Average,
    pub avg300: Average,
    pub total: u64,
}

/// A percentage in hundredths, which is all that the kernel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Average(pub u32);

impl Serialize for Average {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 % 100 {
            0 => serializer.serialize_u32(self.0 / 100),
            _ => serializer.serialize_f64(f64::from(self.0) / 100.0),
        }
    }
}

/// Reads `cpu.pressure`, `memory.pressure` or `io.pressure`; `None` where the kernel keeps none.
pub(in crate::cgroups) fn read(group: &Cgroup, file: &str) -> Result<Option<Pressure>> {
    let Some(unified) = group.unified() else {
        return Ok(None);
    };
    match unified.read_if_present(file) {
        Ok(text) => Ok(text.as_deref().map(parse)),
        // Compiled in, but switched off (psi=0).
        Err(CgroupError::File {
            errno: Errno::EOPNOTSUPP,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let target = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => target.avg10 = hundredths(value),
                "avg60" => target.avg60 = hundredths(value),
                "avg300" => target.avg300 = hundredths(value),
                "total" => target.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    pressure
}

/// The kernel writes exactly two decimals.
fn hundredths(text: &str) -> Average {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let number = |digits: &str| digits.parse::<u32>().unwrap_or_default();
    Average(number(whole).saturating_mul(100).saturating_add(number(fraction)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let text = "some avg10=1.50 avg60=0.05 avg300=12.00 total=8421\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let json = serde_json::to_string(&parse(text)).unwrap();
        assert_eq!(
            json,
            r#"{"some":{"avg10":1.5,"avg60":0.05,"avg300":12,"total":8421},"full":{"avg10":0,"avg60":0,"avg300":0,"total":7}}"#
        );
    }
}
