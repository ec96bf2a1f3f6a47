//! Names of devices: `vendor/class=name`.

/// Refuses what is no device's whole name.
pub(super) fn check_qualified(device: &str) -> Result<(), String> {
    let refused = |reason: &str| {
        Err(format!(
            "{device:?} is not the name of a CDI device, as in vendor.com/class=name: {reason}."
        ))
    };
    let Some((kind, name)) = device.split_once('=') else {
        return refused("it has no `=`");
    };
    if check_kind(kind).is_err() {
        return refused("what is before the `=` is not a vendor and a class");
    }
    match is_name(name) {
        true => Ok(()),
        false => {
            refused("the device's own name is letters, digits and -_.: with a letter or digit at its ends")
        }
    }
}

/// Refuses what is not `vendor/class`.
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    match kind.split_once('/') {
        Some((vendor, class)) if is_part(vendor) && is_part(class) => Ok(()),
        _ => Err(format!(
            "the kind {kind:?} is not a vendor and a class, as in vendor.com/class"
        )),
    }
}

/// Whether it can be a device's name within its kind.
pub(super) fn is_name(name: &str) -> bool {
    begins_and_ends(name, |b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

fn is_part(part: &str) -> bool {
    begins_and_ends(part, |b| b.is_ascii_alphabetic())
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn begins_and_ends(text: &str, begins: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|first| begins(*first)) && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_three_parts() {
        for good in ["vendor.com/class=name", "v/c=0", "a-b.c_d/e.f=GPU-0:1.x"] {
            check_qualified(good).unwrap();
        }
        for bad in [
            "", "gpu", "v/c", "v/c=", "=x", "/c=x", "v/=x", "0v/c=x", "v/c=-x", "v/c=x:", "v/c/d=x",
            "v/c=a b",
        ] {
            let error = check_qualified(bad).unwrap_err();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
