"""Train a masked autoencoder on an image; embed its plants and reconstruct them.

Runs on the embedded maize kernel in two minutes: python examples/plant_embeddings.py
"""

import sciml_dchag as sd

store = sd.plants.prepare(
    "sample:maize_kernel",
    "stores/kernel.zarr",
    white="sample:maize_white",
    dark="sample:maize_dark",
    index="brightness",  # a kernel is not green, as leaves are
    bands="400-900x100",
    split="spatial:0.62,guard=4",  # one image alone: cut into parts for training and test
    overwrite=True,
)
recipe = sd.load_recipe("sample:demo_plants").replace(
    name="kernel", data=dict(store=store), training=dict(steps=200, log_every=50)
)
run = sd.train(recipe, "runs/kernel", console=print)

embeddings = run.embed(store, "runs/kernel/embeddings", overwrite=True)
print(embeddings.plants.iloc[:, :6].round(3))  # one row per plant; `patches` has the others
rebuilt = run.reconstruct(store, "runs/kernel/rebuilt", overwrite=True)
for image in store:
    error = (rebuilt[image].reflectance - store[image].reflectance).where(store[image].mask > 0)
    print(f"{image}: root mean square error {float((error**2).mean() ** 0.5):.4f} of reflectance")
print(sd.evaluate(run).to_frame().head(4))
