//! What reading has made of the numbers and labels of a file.

/// What reading has made of the numbers and labels of a file, for whoever gives the samples to a
/// network that was made elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The numbers of the file that have become 0 and 1, where others were asked for or bytes were
    /// divided by 255.
    pub scale: Option<[f64; 2]>,
    /// The file's label of each class, where they are not the classes' numbers from 0.
    pub labels: Vec<String>,
    /// What was not there, and could be done without.
    pub missing: Vec<String>,
}

/// Labels that are listed in full.
const LISTED: usize = 12;

impl Reading {
    /// In words, such as `3 classes: 0 is the label 1, 1 is 2, 2 is 7`.
    pub fn classes(&self) -> Option<String> {
        if self.labels.is_empty() {
            return None;
        }
        let listed = self.labels.iter().take(LISTED).enumerate();
        let listed = listed.map(|(class, label)| match class {
            0 => format!("0 is the label {label}"),
            _ => format!("{class} is {label}"),
        });
        let more = match self.labels.len() {
            ..=LISTED => "",
            _ => ", …",
        };
        let listed: Vec<String> = listed.collect();
        let count = self.labels.len();
        Some(format!("{count} classes: {}{more}", listed.join(", ")))
    }

    /// What has become of the numbers, in words.
    pub fn scaling(&self) -> Option<String> {
        let [low, high] = self.scale?;
        Some(format!(
            "the numbers {low} to {high} of the file have become 0 to 1, and the model sees those; `--scale none --box data` \
             leaves them as they are"
        ))
    }

    /// The numbers that the labels are, if all are whole.
    pub(super) fn label_numbers(&self) -> Option<Vec<usize>> {
        self.labels.iter().map(|label| label.parse().ok()).collect()
    }
}

/// Labels that are whole numbers as classes from 0 on, in the order of the numbers: the class of
/// each sample, and the label of each class. Without a gap the classes are the labels.
pub(super) fn compact(labels: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut known: Vec<usize> = labels.to_vec();
    known.sort_unstable();
    known.dedup();
    let place = |label: &usize| known.binary_search(label).expect("all are known");
    (labels.iter().map(place).collect(), known)
}

/// The texts of labels that are not the numbers of their classes.
pub(super) fn label_texts(known: &[usize]) -> Vec<String> {
    match known.iter().enumerate().all(|(i, label)| i == *label) {
        true => Vec::new(),
        false => known.iter().map(usize::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_closed_and_named() {
        let (classes, known) = compact(&[7, 1, 2, 7]);
        assert_eq!((classes, &known[..]), (vec![2, 0, 1, 2], &[1, 2, 7][..]));
        let reading = Reading {
            labels: label_texts(&known),
            ..Reading::default()
        };
        let words = "3 classes: 0 is the label 1, 1 is 2, 2 is 7";
        assert_eq!(reading.classes().unwrap(), words);
        assert!(label_texts(&compact(&[1, 0, 2]).1).is_empty());
    }
}
