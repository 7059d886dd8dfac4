"""The graph: photos to a gated, exported classifier. Wiring only."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.augment_examples.component import augment_examples
from components.deploy_model.component import deploy_model
from components.evaluate_model.component import evaluate_model
from components.export_model.component import export_model
from components.gate_model.component import gate_model, refuse_model
from components.ingest_examples.component import ingest_examples
from components.report_run.component import report_run
from components.train_model.component import train_model

NAME = "flowers"
DESCRIPTION = "Labelled photos to a gated, deployed classifier."


def graph_with(
    train: Any = train_model, run: Any = "", cache_photos: bool = False
) -> Callable[..., None]:
    """The graph, as a function for `dsl.pipeline`.

    Args:
        train: What trains, with the interface of `train_model`.
        run: Placeholder of a backend for the name of the run, in place of the parameter.
        cache_photos: Whether ingestion may be taken from a cache, which is then that of one run.
    """

    def flowers_graph(
        images: str,
        manifest: str,
        group_column: str,
        previous: str,
        new_splits: bool,
        image_size: int,
        validation_fraction: float,
        test_fraction: float,
        max_reject_fraction: float,
        split_salt: str,
        resize: str,
        augment_copies: int,
        augment_seed: int,
        augment_policy: dict,
        model_config: dict,
        train_config: dict,
        checkpoint: str,
        checkpoint_steps: int,
        accelerator: dict,
        gate_threshold: float,
        export_config: dict,
        deploy_config: dict,
        registry: str,
        model_name: str,
        run_name: str,
        serving_config: dict,
        command: str,
    ) -> None:
        """Ingests, augments, trains, evaluates, gates and exports.

        The parameters are those of the steps; a recipe gives all but the first five.
        """
        ingested = ingest_examples(
            images=images,
            manifest=manifest,
            group_column=group_column,
            previous=previous,
            new_splits=new_splits,
            image_size=image_size,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            max_reject_fraction=max_reject_fraction,
            split_salt=split_salt,
            resize=resize,
        )
        # The photos may have changed under the same name: it has to look, in every run.
        ingested.set_caching_options(cache_photos)
        examples = ingested.outputs["examples"]
        augmented = augment_examples(
            examples=examples, copies=augment_copies, seed=augment_seed, policy=augment_policy
        )
        trained = train(
            examples=examples,
            augmented=augmented.outputs["augmented"],
            model_config=model_config,
            train_config=train_config,
            checkpoint=checkpoint,
            checkpoint_steps=checkpoint_steps,
            accelerator=accelerator,
        )
        evaluated = evaluate_model(examples=examples, model=trained.outputs["model"])
        gated = gate_model(
            model=trained.outputs["model"],
            evaluation=evaluated.outputs["evaluation"],
            threshold=gate_threshold,
        )
        reported = report_run(
            verdict=gated.outputs["verdict"],
            evaluation=evaluated.outputs["evaluation"],
            evaluation_page=evaluated.outputs["report"],
            training_page=trained.outputs["report"],
            augmentation_page=augmented.outputs["report"],
            data_page=ingested.outputs["report"],
            run_name=run or run_name,
            command=command,
        )
        # Always both branches: kfp.local skips a lone If on a named output and calls that success.
        with dsl.If(gated.outputs["Output"] == True, name="gate-open"):  # noqa: E712
            exported = export_model(
                examples=examples,
                model=trained.outputs["model"],
                evaluation=evaluated.outputs["evaluation"],
                verdict=gated.outputs["verdict"],
                export_config=export_config,
                images=images,
                manifest=manifest,
                model_config=model_config,
                train_config=train_config,
            )
            with dsl.If(registry != "", name="registry-given"):
                deployed = deploy_model(
                    examples=examples,
                    saved_model=exported.outputs["saved_model"],
                    evaluation=evaluated.outputs["evaluation"],
                    verdict=gated.outputs["verdict"],
                    registry=registry,
                    model_name=model_name,
                    run_name=run or run_name,
                    deploy_config=deploy_config,
                    serving_config=serving_config,
                )
                # Which model serves is not among its inputs: it has to look, every time.
                deployed.set_caching_options(False)
        with dsl.Else(name="gate-closed"):
            # A run that is refused has its page all the same.
            refuse_model(verdict=gated.outputs["verdict"]).after(reported)

    return flowers_graph


flowers_pipeline = dsl.pipeline(name=NAME, description=DESCRIPTION)(graph_with())
