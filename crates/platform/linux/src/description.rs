//! How a disk is described in a line of text: `IMAGE[,OPTION]…`.

/// Splits a description into the image's name and the options, the last one first; `None` if it
/// names no image. `flags` are the options that have no value.
///
/// Options are split off from the end, so an image's name may contain commas.
pub fn split<'a>(text: &'a str, flags: &[&str]) -> Option<(&'a str, Vec<&'a str>)> {
    let (mut rest, mut options) = (text, Vec::new());
    while let Some((head, option)) = rest.rsplit_once(',') {
        let known = flags.contains(&option) || option.contains('=') && !option.contains(['/', '.']);
        if !known {
            break;
        }
        options.push(option);
        rest = head;
    }
    (!rest.is_empty()).then_some((rest, options))
}

/// The value of `sector=`, in bytes; otherwise why it is none.
pub fn sector_bytes(value: &str) -> Result<u32, String> {
    match value {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err(format!("sectors have 512 or 4096 bytes, not {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_off_from_the_end() {
        assert_eq!(split("a", &[]), Some(("a", vec![])));
        assert_eq!(split("a,b,ro,x=1", &["ro"]), Some(("a,b", vec!["x=1", "ro"])));
        assert_eq!(split("a,ro", &[]), Some(("a,ro", vec![])));
        assert_eq!(split("x,ro=1/y", &["ro"]), Some(("x,ro=1/y", vec![])));
        assert_eq!(split(",ro", &["ro"]), None);
        assert_eq!(split("", &[]), None);
    }
}
