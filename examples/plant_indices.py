"""From a camera's counts to reflectance, a plant mask, spectra and vegetation indices."""

import sciml_dchag as sd

store = sd.plants.prepare(
    "sample:maize_kernel",  # or scans of your own: "scans/*.hdr"
    "stores/kernel_indices.zarr",
    white="sample:maize_white",
    dark="sample:maize_dark",
    index="brightness",  # a kernel is not green, as leaves are
    bands="400-900x500",
    split="1/0/0",
    overwrite=True,
)
print(store)

(kernel,) = store  # names of the images
ndvi = sd.plants.index("NDVI", store[kernel])  # at every pixel, as labelled xarray
print(f"NDVI of the kernel: {float(ndvi.where(store[kernel].mask > 0).mean()):.3f}")
print(store.indices(["NDVI", "REP", "PRI"]).round(3).T)  # one row per plant, here turned

spectra = store.spectra()  # mean of each plant, (plant, wavelength)
print(spectra.isel(plant=0).sel(wavelength=[450, 550, 680, 800], method="nearest").to_series())
print(store.rgb(kernel).sizes)  # ready for matplotlib's imshow
