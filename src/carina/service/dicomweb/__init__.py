"""DICOMweb (PS3.18): QIDO-RS and WADO-RS over what the node accepted and made, STOW-RS into it."""
