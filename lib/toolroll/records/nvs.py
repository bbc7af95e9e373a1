"""DL3DV: scenes for novel view synthesis."""

from typing import Annotated, Literal

from msgspec import Meta

from toolroll.records.base import Count, Positive, Record, Safe, said


class LensModel(Record, kw_only=True, frozen=True):
    """A lens, for photos of `width` x `height`."""

    camera_model: Annotated[str, said("Its model, as COLMAP names it.")]
    focal_px: Annotated[list[float], said("Focal lengths in x and y, in pixels.")]
    centre_px: Annotated[list[float], said("Where the axis meets the photo, from its upper left corner, in pixels.")]
    distortion: Annotated[list[float], said("The numbers of its distortion, in COLMAP's order.")]


class NvsScene(Record, kw_only=True, frozen=True):
    """A scene: photos with their cameras, and points. What nvs-prep writes."""

    id: Annotated[str, said("The name of its folder; DL3DV's hash.")]
    scene_path: Annotated[str, said("Its folder, as it was given.")]
    layout: Annotated[
        Literal["nerfstudio", "instant-ngp", "blender", "colmap"], said("What kind of files it was read from.")
    ]
    images_folder: Annotated[str, said("The folder of the first photo.")]
    n_images: Annotated[Count, said("Photos that are there and have a pose.")]
    width: Annotated[Count, said("Width of the images in pixels; of most, if they differ.")]
    height: Annotated[Count, said("Height of the images in pixels.")]
    n_lenses: Annotated[Count, said("Different lenses.")]
    lens: Annotated[LensModel, said("The lens of the first photo of this size.")]
    n_masks: Annotated[Count, said("Photos with a mask.")]
    n_points: Annotated[Count, said("Points.")]
    spread: Annotated[Positive, said("How far the farthest camera is from the middle of all, in units of the scene.")]
    split_rule: Annotated[str, said("The rule that says which photos are for what.")]
    n_train: Annotated[Count, said("Photos to train on.")]
    n_val: Annotated[Count, said("Photos to look at while training.")]
    n_test: Annotated[Count, said("Photos to test.")]
    labels: Annotated[dict[str, str] | None, said("--labels: what the table says of it.")] = None
    written: Annotated[str | None, said("--out: the folder it was written into.")] = None
    warnings: Annotated[list[str], said("What was found wrong and passed over.")]


class NvsTrainedScene(Record, kw_only=True, frozen=True):
    """The scores of a scene in a training of several."""

    scene: Annotated[str, said("Name of the scene.")]
    seen: Annotated[bool, said("Whether it is learned from.")]
    n_images: Annotated[Count, said("Test photos that were scored.")]
    psnr_db: Annotated[
        float | None,
        said("Mean PSNR, without photos met exactly and those that a mask leaves nothing of; null without any other."),
    ]
    ssim: Annotated[
        float | None, said("Mean SSIM, windows inside the photos; null where their size or a mask leaves none.")
    ]


class NvsStep(Record, kw_only=True, frozen=True):
    """Some steps of a scene's training: what nvs-train writes."""

    step: Annotated[Count, said("Number of the step, from 1.")]
    loss: Annotated[float, said("What was minimised; mean since the row before.")]
    n_gaussians: Annotated[Count | None, said("3dgs: Gaussians after the step.")] = None
    sh_degree: Annotated[Count | None, said("3dgs: degree of the harmonics of colours in this step.")] = None
    psnr_db: Annotated[
        float | None, said("Mean PSNR of the test photos, where they were scored; null where none has a finite one.")
    ] = None
    ssim: Annotated[
        float | None, said("Mean SSIM of the test photos, windows inside them; null where none has a window.")
    ] = None
    unseen_psnr_db: Annotated[float | None, said("ibrnet: mean PSNR over the scenes of --unseen.")] = None
    unseen_ssim: Annotated[float | None, said("ibrnet: mean SSIM over the scenes of --unseen.")] = None
    scenes: Annotated[list[NvsTrainedScene] | None, said("ibrnet: the scores of each scene, of several.")] = None


class NvsCamera(Record, kw_only=True, frozen=True):
    """A pinhole camera: what nvs-render draws from."""

    image: Annotated[str, said("Name of the photo, or of the picture, in its folder.")]
    part: Annotated[str | None, said("What the photo was for: train, val or test.")] = None
    world_to_camera: Annotated[
        list[list[float]], said("Pose, 4 x 4 by rows; the camera looks along +z, x right, y down.")
    ]
    width: Annotated[int, Meta(ge=1), said("Width of the picture in pixels.")]
    height: Annotated[int, Meta(ge=1), said("Height of the picture in pixels.")]
    fx: Annotated[float, Meta(gt=0), said("Focal length in x, in pixels.")]
    fy: Annotated[float, Meta(gt=0), said("Focal length in y, in pixels.")]
    cx: Annotated[float, said("Where the axis meets the picture, from its left edge, in pixels.")]
    cy: Annotated[float, said("The same from the upper edge.")]


class NvsRender(NvsCamera, kw_only=True, frozen=True):
    """A picture of a trained scene: what nvs-render writes."""

    render: Annotated[str, said("The picture, in the folder --out.")]
    coverage: Annotated[float, Meta(ge=0), said("How much of the background is covered, on average.")]
    depth: Annotated[str | None, said("--depth: the depths, in the folder --out.")] = None
    ms: Annotated[Positive, said("Time it took to draw and write.")]


class NvsScores(Record, kw_only=True, frozen=True):
    """How well pictures show a scene, and by which rules that was scored."""

    method: Annotated[str, said("What made the pictures.")]
    scene: Annotated[str, said("Name of the scene, as tables of labels have it.")]
    psnr_db: Annotated[
        Safe | None,
        said(
            "PSNR: -10 log10 of the mean squared error; null for a picture that equals its photo, whose row has an "
            "`error`. Of several images, the mean."
        ),
    ]
    ssim: Annotated[
        Safe | None,
        said(
            "SSIM; null where no window of 11 x 11 is inside the picture (with ssim_border valid), or a mask leaves "
            "the middle of none. Of several images, the mean; null where that of one is."
        ),
    ] = None
    lpips_alex: Annotated[Safe | None, said("LPIPS by AlexNet, on [-1, 1]; null for a picture too small for it.")] = (
        None
    )
    lpips_vgg: Annotated[Safe | None, said("LPIPS by VGG16, on [-1, 1]; null for a picture too small for it.")] = None
    lpips_vgg_3dgs: Annotated[Safe | None, said("LPIPS by VGG16 on [0, 1], as 3DGS and gsplat compute it.")] = None
    ssim_border: Annotated[
        Literal["valid", "same"],
        said("SSIM: windows inside the picture alone, or at each pixel, with zeros around it."),
    ]
    eight_bit: Annotated[bool, said("Whether picture and photo were rounded to 8 bits before they were compared.")]
    images_folder: Annotated[str | None, said("The folder of the first photo.")] = None
    frequency: Annotated[Positive | None, said("--frequency: how much fine detail the photos of the scene have.")] = (
        None
    )


class NvsScore(NvsScores, kw_only=True, frozen=True):
    """The score of a picture: what nvs-eval writes, nvs-bench reads."""

    image: Annotated[str, said("Name of the photo, or of the picture, in its folder.")]
    width: Annotated[Count, said("Width of the images in pixels.")]
    height: Annotated[Count, said("Height of the images in pixels.")]
    masked_frac: Annotated[Positive | None, said("Share of pixels that a mask leaves out.")] = None
    render_path: Annotated[str, said("The picture.")]


class NvsSceneScore(NvsScores, kw_only=True, frozen=True):
    """The mean score of a scene's pictures: what nvs-eval --summary writes, nvs-bench reads."""

    n_images: Annotated[Count, said("Images that were scored.")]
    n_failed: Annotated[Count, said("Images that could not be.")]


class NvsBenchRow(Record, kw_only=True, frozen=True):
    """Scores of a method over scenes: what nvs-bench writes. A mean is null where that of a scene is."""

    method: Annotated[str, said("What made the pictures.")]
    breakdown: Annotated[
        Literal["all", "environment", "frequency", "reflection", "transparency"], said("What scenes are told apart by.")
    ]
    group: Annotated[str, said("The label of the scenes, or all.")]
    n_scenes: Annotated[Count | None, said("Scenes; null where the paper does not tell.")]
    n_images: Annotated[Count | None, said("Images that were scored.")] = None
    psnr_db: Annotated[float | None, said("PSNR in dB: the mean over scenes of the means over their images.")]
    psnr_db_std: Annotated[float | None, said("Standard deviation over scenes, n - 1 below; null for one scene.")]
    ssim: Annotated[float | None, said("The same of SSIM.")]
    ssim_std: Annotated[float | None, said("Its standard deviation over scenes.")]
    lpips: Annotated[float | None, said("The same of LPIPS, of the kind `lpips_kind`.")]
    lpips_std: Annotated[float | None, said("Its standard deviation over scenes.")]
    lpips_kind: Annotated[str | None, said("lpips-alex, lpips-vgg, lpips-vgg-3dgs or `not stated`.")]
    ssim_border: Annotated[Literal["valid", "same", "not stated"], said("Which windows SSIM has.")]
    eight_bit: Annotated[bool | None, said("Whether pictures were rounded to 8 bits; null where that is not stated.")]
    source: Annotated[Literal["scores", "paper"], said("Scored, or read from the paper: of other scenes.")]
