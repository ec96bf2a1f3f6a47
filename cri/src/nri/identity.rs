//! Who a plugin is.

/// Who a plugin is, if the runtime knows that before it registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    pub(super) index: String,
    pub(super) base: String,
    /// Handed to the plugin as it is.
    pub(super) config: String,
}

impl Identity {
    /// Upstream's rules for names: two digits, and what a file can be called.
    pub(super) fn check(&self) -> Result<(), String> {
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(&self.index) {
            return Err(format!("A plugin's index is two digits, not {:?}.", self.index));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if self.base.is_empty() || !self.base.bytes().all(plain) {
            return Err(format!(
                "A plugin's name is made of letters, digits and -_.+, not {:?}.",
                self.base
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |index: &str, base: &str| Identity {
            index: index.into(),
            base: base.into(),
            config: String::new(),
        };
        for good in [name("00", "a"), name("99", "logger_1.0+x-y")] {
            good.check().unwrap();
        }
        for bad in [
            name("0", "a"),
            name("0a", "a"),
            name("000", "a"),
            name("00", ""),
            name("00", "a b"),
        ] {
            bad.check().unwrap_err();
        }
    }
}
