//! What judges the signatures of this project and is not of this project; the tests are all there is.
